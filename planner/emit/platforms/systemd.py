"""systemd: the shell's scripts as services of a server, started at boot and again when they fail.

A unit only runs a script, so that no value of a plan is spelled in systemd's own language; what it says of the
model is text in which nothing is a specifier.
"""

from __future__ import annotations

import re

from planner.emit.deployment import Deployment
from planner.emit.launch import KEY_VARIABLE, Launch
from planner.emit.platforms import shell
from planner.emit.platforms.pods import grace_seconds
from planner.emit.quoting import comment
from planner.emit.stamp import header

ENVIRONMENT = "plan.env"
_PICKS_INSTANCE = 'instance="${1:-0}"'


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return the shell's scripts, a unit for each that serves, and the file of variables that the units read."""
    written = shell.files(deployment, launches)
    units = {}
    for launch in launches:
        script = f"{launch.pool.name}.sh"
        units[unit_name(deployment, launch.pool.name, written[script])] = _unit(deployment, launch, script, written)
    if "router.sh" in written:
        units[unit_name(deployment, "router", "")] = _unit(deployment, launches[-1], "router.sh", written)
    return {**written, **units, ENVIRONMENT: _variables(deployment, launches, written)}


def directory(deployment: Deployment) -> str:
    """Return where the units look for their scripts."""
    return f"/opt/{deployment.slug}"


def unit_name(deployment: Deployment, name: str, script: str) -> str:
    """Return the name of a script's unit: a template where the script takes the number of an instance."""
    return f"{deployment.slug}-{name}{'@' if _PICKS_INSTANCE in script else ''}.service"


def plain(text: str) -> str:
    r"""Return text as a unit's value has it, on one line: ``%`` begins a specifier, a last backslash joins lines.

    >>> print(plain("50%n\nExecStart=x\\"))
    50%%n ExecStart=x\.
    """
    line = re.sub(r"[^\x20-\x7e]+", " ", text).strip().replace("%", "%%")
    return f"{line}." if line.endswith("\\") else line


def _unit(deployment: Deployment, launch: Launch, script: str, written: dict[str, str]) -> str:
    where = directory(deployment)
    instance = " %i" if _PICKS_INSTANCE in written[script] else ""
    what = plain(f"{script.removesuffix('.sh')} of {deployment.served_name}")
    return "\n".join(
        [
            header(deployment, launch).rstrip(),
            "[Unit]",
            f"Description={what}",
            "Wants=network-online.target",
            "After=network-online.target",
            "",
            "[Service]",
            comment("It runs as root unless a drop-in sets User=, who must be able to write there."),
            f"WorkingDirectory={where}",
            f"EnvironmentFile=-{where}/{ENVIRONMENT}",
            f"ExecStart=/bin/bash {where}/{script}{instance}",
            "Restart=on-failure",
            "RestartSec=10",
            comment("The longest request may end before the engine is stopped by force."),
            "KillMode=mixed",
            f"TimeoutStopSec={grace_seconds(deployment)}",
            "LimitNOFILE=1048576",
            "LimitMEMLOCK=infinity",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def _variables(deployment: Deployment, launches: list[Launch], written: dict[str, str]) -> str:
    """Return the file of variables: every one that a script may be told, none of them set."""
    key = launches[0].key_variable or KEY_VARIABLE
    known = {
        "PATH": "where the engine is installed: /opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "below it the hub's cache of weights, .cache/huggingface",
        "HF_TOKEN": "of the model hub, where the model asks for one",
        key: "the key that clients must have; without it they need none",
        "RANK": "0 on an instance's first server, 1 on the next",
        "HEAD": "address of an instance's first server",
        "ADDRESS": "of this server, for the other pool",
        "SERVERS": "addresses of the plan's servers, separated by spaces",
    }
    known |= {f"{launch.pool.role.upper()}_HOSTS": f"servers with {launch.pool.role} instances" for launch in launches}
    always = ("PATH", "HOME", "HF_TOKEN")
    text = "\n".join(written.values())
    told = [
        f"# {name}=  ; {why}" for name, why in known.items() if name in always or re.search(rf"\$\{{?{name}\b", text)
    ]
    return "\n".join([header(deployment, launches[0]).rstrip(), *told, ""])
