"""A pretended NVIDIA GPU: what torch and Triton are asked about it, answered from a record.

Runs in the engines' environment. `pretend` comes before any engine is imported; what an engine's own
platform class answers is in the engine's module.
"""

import torch
from torch.overrides import TorchFunctionMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver as triton_driver


class Gpu:
    """The record; changed before each question."""

    capability = (8, 0)
    name = "NVIDIA A100-SXM4-80GB"
    memory_bytes = 80 << 30
    count = 8
    multiprocessors = 108
    shared_memory_bytes = 163 << 10


def become(record):
    """Take the values of a question."""
    for name, value in record.items():
        setattr(Gpu, name, tuple(value) if name == "capability" else value)


class _Nothing:
    """A stream or an event: everything may be asked of it, nothing happens."""

    cuda_stream = 0

    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        return lambda *_, **__: None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


class _Properties:
    is_integrated = 0
    warp_size = 32
    max_threads_per_multi_processor = 2048
    shared_memory_per_block = 48 << 10
    L2_cache_size = 40 << 20
    regs_per_multiprocessor = 65536
    gcnArchName = ""

    def __init__(self):
        self.major, self.minor = Gpu.capability
        self.name, self.total_memory = Gpu.name, Gpu.memory_bytes
        self.multi_processor_count = Gpu.multiprocessors
        self.shared_memory_per_block_optin = Gpu.shared_memory_bytes
        self.shared_memory_per_multiprocessor = Gpu.shared_memory_bytes + 1024


class _TritonDriver:
    """Triton's view of the GPU, which the kernels of state-space and delta-rule layers ask for when imported."""

    class utils:  # noqa: N801 - Triton's name
        @staticmethod
        def get_device_properties(_device):
            return {
                "max_shared_mem": Gpu.shared_memory_bytes,
                "multiprocessor_count": Gpu.multiprocessors,
                "warpSize": 32,
            }

    def get_current_target(self):
        return GPUTarget("cuda", Gpu.capability[0] * 10 + Gpu.capability[1], 32)

    def get_current_device(self):
        return 0

    def get_device_capability(self, *_):
        return Gpu.capability

    def get_active_torch_device(self):
        return torch.device("meta")

    def get_device_interface(self):
        return torch.cuda

    def __getattr__(self, name):
        return lambda *_, **__: None


class _CudaIsMeta(TorchFunctionMode):
    """Tensors that are asked for on the GPU have a shape and no memory."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if isinstance(device, int) or "cuda" in str(device):  # a number is a GPU's
            kwargs["device"] = "meta"
        makes = getattr(function, "__name__", "") in ("to", "empty", "zeros", "ones")
        return function(*(_meta(a, makes) for a in args), **kwargs)


def _meta(argument, makes):
    if isinstance(argument, torch.device) and argument.type == "cuda":
        return torch.device("meta")
    return "meta" if makes and isinstance(argument, str) and argument.startswith("cuda") else argument


def pretend():
    """Put the pretended GPU in the place of a real one, for torch and Triton."""
    triton_driver.set_active(_TritonDriver())
    cuda = torch.cuda
    cuda.get_device_properties = lambda *_, **__: _Properties()
    cuda.get_device_capability = lambda *_, **__: Gpu.capability
    cuda.get_device_name = lambda *_, **__: Gpu.name
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: Gpu.count
    cuda._exchange_device = lambda *_, **__: 0
    cuda._maybe_exchange_device = lambda *_, **__: 0
    torch.accelerator.current_device_index = lambda: 0
    cuda.Stream = cuda.Event = _Nothing
    cuda.current_stream = cuda.stream = lambda *_, **__: _Nothing()
    for name in ("synchronize", "empty_cache", "set_device"):  # torch tells functions apart by identity
        setattr(cuda, name, lambda *_, **__: None)
    cuda.mem_get_info = lambda *_, **__: (Gpu.memory_bytes, Gpu.memory_bytes)
    _CudaIsMeta().__enter__()
