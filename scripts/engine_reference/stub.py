"""A stand-in for NVIDIA's driver library, so that vLLM's CUDA build can be imported on a machine without a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_DRIVER = re.compile(r" U (cu[A-Z]\w*)")
_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""


def driver_stub(environment: Path, place: Path) -> Path:
    """Build ``libcuda.so.1`` with every driver function that the environment's libraries import.

    Each of them returns CUDA_ERROR_NO_DEVICE.

    Parameters
    ----------
    environment
        A virtual environment with vLLM.
    place
        Directory for the library; what is there already is kept.

    Returns
    -------
    Path
        The directory, for ``LD_LIBRARY_PATH``.
    """
    library = place / "libcuda.so.1"
    if library.exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    packages = next((environment / "lib").glob("python3*/site-packages"))
    names: set[str] = set()
    for binary in [*packages.glob("vllm/*.so"), *packages.glob("torch/lib/*.so")]:
        listed = subprocess.run(["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True)
        names |= set(_DRIVER.findall(listed.stdout))
    source = place / "libcuda.c"
    source.write_text("".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in sorted(names)))
    build = ["gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    subprocess.run(build, check=True)
    return place
