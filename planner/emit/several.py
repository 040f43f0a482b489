"""Launches of several kinds beside each other: what each has of its own, and what they must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.emit.launch import Flags, Launch, Value
from planner.errors import InputError


def in_files_of_its_own(launch: Launch) -> Launch:
    """Return a launch whose files bear its pool's name, so that another kind's don't overwrite them."""
    names = {name: f"{launch.pool.name}-{name}" for name in launch.files}

    def renamed(text: str) -> str:
        for name, own in names.items():
            text = text.replace(f"{{directory}}/{name}", f"{{directory}}/{own}")
        return text

    def value(given: Value) -> Value:
        if isinstance(given, tuple):
            return tuple(renamed(word) for word in given)
        return renamed(given) if isinstance(given, str) else given

    def flags(given: Flags) -> Flags:
        return tuple((name, value(one)) for name, one in given)

    return replace(
        launch,
        program=tuple(renamed(word) for word in launch.program),
        flags=flags(launch.flags),
        worker_flags=flags(launch.worker_flags),
        environment={name: renamed(text) for name, text in launch.environment.items()},
        files={names[name]: text for name, text in launch.files.items()},
        config=None if launch.config is None else renamed(launch.config),
    )


def check_side_by_side(launches: Sequence[Launch]) -> None:
    """Refuse kinds that clients can't use alike.

    Raises
    ------
    InputError
        With every reason.
    """
    problems = []
    offline = [launch.engine for launch in launches if not launch.is_server]
    if offline:
        problems.append(f"the plan: {offline[0]} is no server and stands beside others; plan with --engine vllm")
    names = sorted({launch.api_name or "" for launch in launches})
    if len(names) > 1:
        told = ", ".join(name or "as planned" for name in names)
        problems.append(
            f"the plan: its engines name the model differently ({told}), "
            "and one router stands before them; plan with one --engine"
        )
    if problems:
        raise InputError(problems)
