"""What KServe makes of an LLMInferenceService: presets below it, templates read, as pods.

The rules are those of Kubernetes' strategic merge patch: mappings merge, lists of named things merge by their key,
other lists are replaced.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.manifests import read_yaml

PRESETS = Path(__file__).parent / "golden" / "emit" / "schemas" / "kserve_presets.yaml"
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
_TLS = re.compile(r"\{\{-? if \.GlobalConfig\.EnableTLS -?\}\}(.*?)(?:\{\{-? ?else ?-?\}\}(.*?))?\{\{-? end -?\}\}")
_QUOTED = re.compile(r"\{\{`([^`]*)`\}\}")


def merged_pods(service: dict[str, Any], *, tls: bool) -> dict[str, dict[str, Any]]:
    """Return the specs of the pods that KServe would start, by part: template, worker, prefill, prefill worker."""
    presets = read_yaml(PRESETS.read_text(encoding="utf-8"))
    spec = service["spec"]
    found: dict[str, dict[str, Any]] = {}
    for prefix, workload, alone in (
        ("", spec, "decode" if "prefill" in spec else "template"),
        ("prefill-", spec.get("prefill"), "template"),
    ):
        if workload is None:
            continue
        preset = presets["worker" if "worker" in workload else alone]
        for part in ("template", "worker"):
            if part in workload:
                whole = _merge(preset[part], workload[part])
                found[f"{prefix}{part}"] = json.loads(_render(json.dumps(whole), tls))
    return found


def _render(text: str, tls: bool) -> str:
    text = _TLS.sub(lambda match: match[1] if tls else match[2] or "", text)
    text = _QUOTED.sub(lambda match: match[1].replace("{{", "\0"), text)
    if "{{" in text:
        raise ValueError(f"a template that KServe would read: {text[text.index('{{') :][:60]}")
    return text.replace("\0", "{{")


def _merge(base: Any, own: Any, field: str = "") -> Any:
    if isinstance(base, dict) and isinstance(own, dict):
        return base | {name: _merge(base.get(name), value, name) for name, value in own.items()}
    key = _KEYS.get(field)
    if isinstance(base, list) and isinstance(own, list) and key is not None:
        by_key = {item[key]: item for item in base}
        for item in own:
            by_key[item[key]] = _merge(by_key.get(item[key], {}), item)
        return list(by_key.values())
    return own


def problems_of_pod(pod: dict[str, Any]) -> list[str]:
    """Say why a pod of a root image would not start, not become ready, or not find its engine."""
    (main,) = [c for c in pod["containers"] if c["name"] == "main"]
    found = []
    user = main["securityContext"]
    if user.get("runAsNonRoot") and not user.get("runAsUser"):
        found.append("CreateContainerConfigError: the image runs as root")
    line = " ".join([*main["command"], *main.get("args", [])])
    scheme = "HTTPS" if "--ssl-" in line else "HTTP"
    port = re.search(r"--(?:server-)?port (\d+)", line)
    ports = {p.get("name"): p["containerPort"] for p in main["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = main.get(name)
        if probe is None:
            continue
        asked = probe["httpGet"]
        at = ports.get(asked["port"], asked["port"])
        if asked.get("scheme", "HTTP") != scheme:
            found.append(f"{name} speaks {asked.get('scheme')}, the server {scheme}")
        if port is None or at != int(port[1]):
            found.append(f"{name} asks port {at}, the server listens on {port and port[1]}")
    others = [p["containerPort"] for c in pod.get("initContainers", []) for p in c.get("ports", [])]
    if port is not None and int(port[1]) in others:
        found.append(f"port {port[1]} is another container's")
    if len(main.get("lifecycle", {}).get("preStop", {"x": 1})) != 1:
        found.append("preStop has several handlers")
    if not any("gpu" in name for name in main["resources"]["limits"]):
        found.append("no GPU")
    volumes = {v["name"] for v in pod["volumes"]}
    found += [f"mount {m['name']} has no volume" for m in main["volumeMounts"] if m["name"] not in volumes]
    return found
