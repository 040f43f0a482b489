"""Manifests as Kubernetes takes them: strict schemas, also of what custom resources hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS = Path(__file__).parent / "golden" / "emit" / "schemas"
KUBERNETES = "1.37"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C reads the same values as the one in Python, ten times as fast."""


def read_yaml(text: str) -> Any:
    """Return the value of a file of one document."""
    return yaml.load(text, Loader=LOADER)


def documents(text: str, *kinds: str) -> list[dict[str, Any]]:
    """Return the objects of these kinds; without kinds, all."""
    return [d for d in yaml.load_all(text, Loader=LOADER) if not kinds or d["kind"] in kinds]


def check_manifest(manifest: dict[str, Any]) -> str:
    """Validate a manifest strictly; those of custom resources by our own schema, their pods as pods."""
    kind = str(manifest["kind"])
    if kind == "LeaderWorkerSet":
        schema = json.loads((SCHEMAS / "leaderworkerset.json").read_text())
        jsonschema.validate(manifest, schema)
        group = manifest["spec"]["leaderWorkerTemplate"]
        for part in ("leaderTemplate", "workerTemplate"):
            check_pod(group[part])
        meta = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
        kubernetes_validate.validate(meta, KUBERNETES, strict=True)
    elif kind == "LLMInferenceService":
        schema = json.loads((SCHEMAS / "llminferenceservice.json").read_text())
        jsonschema.validate(manifest, schema)
        workloads = [manifest["spec"], *([manifest["spec"]["prefill"]] if "prefill" in manifest["spec"] else [])]
        for workload in workloads:
            for part in ("template", "worker"):
                if part in workload:
                    check_pod({"metadata": {"annotations": workload["annotations"]}, "spec": workload[part]})
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    return kind


def check_pod(template: dict[str, Any]) -> None:
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)
