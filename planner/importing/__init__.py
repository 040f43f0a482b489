"""ROOM: what somebody already runs becomes a decision. Reads commands, prices nothing.

    read_commands(text) -> commands: every server that a script, unit, compose file, manifest or chart's values start
    import_text(text, gpus, catalog, beside) -> `Imported`: the decision, and what no flag says
    catalog_model(name, ...) -> the model that it serves, whatever its checkpoint is called
    read_flags(command) -> what an engine's own parser makes of it (`planner.emit.tables`: one table per engine)
    defaults.scheduling(imported, gpu) -> sequences, tokens and memory, given or the engine's own defaults

A flag that is given decides. What no flag expresses comes from the ``plan.json`` beside the file, if the file's
stamp says that ``plan emit`` wrote it for that plan; else it is undetermined, and is said to be.
"""

from planner.importing.command import Command
from planner.importing.commands import read_commands
from planner.importing.decision import Imported, import_text
from planner.importing.model import catalog_model
from planner.importing.running import running_server
from planner.importing.summary import summary

__all__ = ["Command", "Imported", "catalog_model", "import_text", "read_commands", "running_server", "summary"]
