"""Measure the machine at hand, and write what it reaches as an overlay of the catalog.

device    what the machine is; which GPU of the catalog it is
sweeps    which sizes of each operation are measured
backend   PyTorch runs and times them; nothing else here imports it
health    busy, throttled: reasons not to believe a time
rules     which times are nonsense
state     every finished point, in a file from which an interrupted run goes on
run       measure what is missing, with progress
fits      the forms of `planner.measured.operations`, with errors on points held out
overlay   catalog entries, and files that nobody loses
"""
