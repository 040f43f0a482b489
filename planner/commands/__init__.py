"""The verbs of the command line: parse, call, print. No arithmetic here."""
