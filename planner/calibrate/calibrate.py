"""One calibration from the device to the overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.load import Catalog
from catalog.schema import Engine, Hardware
from planner.calibrate import overlay
from planner.calibrate.device import Backend, target_of
from planner.calibrate.fits import NO_PEAKS, PEAK_OPERATIONS, Fitted, best_rates, fit_all
from planner.calibrate.run import Options, Watch, measure, points_of, refuse_unhealthy
from planner.calibrate.state import NAME, State, discard_state, open_state
from planner.calibrate.sweeps import OPERATIONS
from planner.errors import InputError
from planner.measured.operations import Peak


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found and wrote."""

    directory: Path
    target: str
    device_name: str
    software: str
    day: str
    fitted: tuple[Fitted, ...]
    files: tuple[str, ...]
    """Relative to the directory."""
    problems: tuple[str, ...]
    """What wasn't fitted or written, with advice."""
    measured_now: int
    """Points that this run measured; all others were there already."""


def calibrate(
    backend: Backend,
    catalog: Catalog,
    directory: Path,
    options: Options,
    *,
    gpu: str | None = None,
    new: bool = False,
    engines: Sequence[str] | None = None,
    resume: bool | None = None,
    watch: Watch | None = None,
) -> Calibration:
    """Measure a device and write what it reaches as an overlay of the catalog.

    Parameters
    ----------
    backend, catalog
        What measures, and the facts.
    directory
        The overlay. Its other files are left alone.
    options
        What to measure, and how.
    gpu, new
        Which GPU of the catalog the device is, and whether to write an entry of its own for it.
    engines
        Engines whose kernels the measured ones stand for; None: `planner.calibrate.overlay.engines_of`.
    resume
        True: there must be a run to go on with; False: begin anew; None: go on if there is one.
    watch
        What is told while it goes on.

    Raises
    ------
    InputError
        If the device is busy or throttled, isn't known, or files would be lost; measured points are kept.
    """
    target, base = target_of(backend.device, catalog, gpu, new)
    # An entry that an earlier run wrote from nothing but measurements is written anew with its peaks.
    own = base is not None and all(source.provenance == "measured" for source in base.sources)
    writes_hardware = base is None or (own and set(PEAK_OPERATIONS) <= set(options.operations))
    unknown = [engine for engine in engines or () if not catalog.has(Engine, engine)]
    if unknown:
        raise InputError(f"--engine {', '.join(unknown)}: unknown; plan catalog list engines shows all")
    standing = overlay.engines_of(catalog, target, engines)
    names = overlay.names_of(target, writes_hardware, standing, options.operations)
    with _state(backend, directory, target, names, options, resume) as state:
        peak = None if base is None or writes_hardware else _peak(base, state)
        if peak is None and any(not state.of(name) and name not in options.operations for name in PEAK_OPERATIONS):
            raise InputError(NO_PEAKS)
        before = len(state.done)
        left_out = measure(backend, state, options, peak, watch or Watch())
        measured_now = len(state.done) - before
        rates = (peak.flops_per_s, peak.hbm_bytes_per_s) if peak else best_rates(state)
        peak = Peak(*rates, state.device.multiprocessors)
        # Everything measured so far: new peaks change all shares, and the links of one entry come from two operations.
        fitted, all_problems = fit_all(state, OPERATIONS, peak, force=options.force)
        problems = left_out + [text for text in all_problems if text.partition(":")[0] in options.operations]
        problems += _without_points(state, options)
        day = state.day
        entries = overlay.measurements(catalog, fitted, state.device, target, standing, day)
        if writes_hardware:
            entries += overlay.new_hardware(target, state.device, peak, fitted, day)
        elif base is not None:
            entry, wrong = overlay.hardware(catalog, base, fitted, state.device, day)
            entries += [entry] if entry else []
            problems += wrong
        overlay.refuse_existing(directory, [e.name for e in entries], state.wrote, force=options.force)
        overlay.write(directory, entries, state)
    device = state.device
    files = tuple(entry.name for entry in entries)
    return Calibration(
        directory, target, device.name, device.software, day.isoformat(), tuple(fitted), files, tuple(problems),
        measured_now,
    )  # fmt: skip


def _without_points(state: State, options: Options) -> list[str]:
    """Operations that were asked for and of which this device can run no point."""
    found = []
    for operation in options.operations:
        if points_of(operation, state, quick=options.quick):
            continue
        if operation != "all_reduce":
            found.append(f"{operation}: every point is too large or too slow here; measure without --quick")
        elif options.operations != OPERATIONS:
            found.append("all_reduce: needs several devices of one name, and there is one; leave it out of --only")
    return found


def _peak(base: Hardware, state: State) -> Peak:
    return Peak(base.flops.bf16, base.hbm_bandwidth, state.device.multiprocessors)


def _state(
    backend: Backend, directory: Path, target: str, names: Sequence[str], options: Options, resume: bool | None
) -> State:
    """Open or begin the state, having refused what would fail after hours of measuring."""
    path = directory / NAME
    if directory.exists() and not directory.is_dir():
        raise InputError(f"-o {directory}: isn't a directory")
    exists = path.is_file() and b"\n" in path.read_bytes()
    if resume and not exists:
        raise InputError(f"--resume: {path} doesn't exist, so there is nothing to go on with; leave --resume out")
    if exists and resume is not False:
        state = open_state(path, backend.device, target, None)
        try:
            overlay.refuse_existing(directory, names, state.wrote, force=options.force)
        except BaseException:
            state.__exit__()
            raise
        return state
    overlay.refuse_existing(directory, names, {}, force=options.force)
    refuse_unhealthy(backend, force=options.force)
    rates = backend.rates()
    directory.mkdir(parents=True, exist_ok=True)
    discard_state(path)
    return open_state(path, backend.device, target, rates)
