"""A pretended NVIDIA GPU: what vLLM and torch ask of it, answered from a record. Runs in vLLM's environment."""

import torch
import vllm.platforms as platforms
from torch.overrides import TorchFunctionMode
from vllm.platforms.cuda import CudaPlatformBase
from vllm.platforms.interface import DeviceCapability


class Gpu:
    """The record; changed before each question."""

    capability = (8, 0)
    name = "NVIDIA A100-SXM4-80GB"
    memory_bytes = 80 << 30
    count = 8
    multiprocessors = 108
    shared_memory_bytes = 163 << 10


class PretendedPlatform(CudaPlatformBase):
    """vLLM's CUDA platform, without a driver."""

    @classmethod
    def get_device_capability(cls, device_id=0):
        return DeviceCapability(*Gpu.capability)

    @classmethod
    def has_device_capability(cls, capability, device_id=0):
        wanted = capability if isinstance(capability, tuple) else divmod(capability, 10)
        return Gpu.capability >= tuple(wanted)

    @classmethod
    def get_device_name(cls, device_id=0):
        return Gpu.name

    @classmethod
    def get_device_uuid(cls, device_id=0):
        return f"GPU-pretended-{device_id}"

    @classmethod
    def get_device_total_memory(cls, device_id=0):
        return Gpu.memory_bytes

    @classmethod
    def is_fully_connected(cls, physical_device_ids):
        return True

    @classmethod
    def device_count(cls):
        return Gpu.count

    @classmethod
    def num_compute_units(cls, device_id=0):
        return Gpu.multiprocessors

    @classmethod
    def is_integrated_gpu(cls, device_id=0):
        return False

    @classmethod
    def is_pin_memory_available(cls):
        return True

    @classmethod
    def log_warnings(cls):
        pass


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


class _CudaIsMeta(TorchFunctionMode):
    """Tensors that are asked for on the GPU have a shape and no memory."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if "cuda" in str(kwargs.get("device", "")):
            kwargs["device"] = "meta"
        makes = getattr(function, "__name__", "") in ("to", "empty", "zeros", "ones")
        return function(*(_meta(a, makes) for a in args), **kwargs)


def _meta(argument, makes):
    if isinstance(argument, torch.device) and argument.type == "cuda":
        return torch.device("meta")
    return "meta" if makes and isinstance(argument, str) and argument.startswith("cuda") else argument


def pretend():
    """Put the pretended GPU in the place of a real one, for vLLM and for torch."""
    platforms._current_platform = PretendedPlatform()
    cuda = torch.cuda
    cuda.get_device_properties = lambda *_, **__: _Properties()
    cuda.get_device_capability = lambda *_, **__: Gpu.capability
    cuda.get_device_name = lambda *_, **__: Gpu.name
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: Gpu.count
    cuda.Stream = cuda.Event = _Nothing
    cuda.current_stream = cuda.stream = lambda *_, **__: _Nothing()
    cuda.synchronize = cuda.empty_cache = lambda *_, **__: None
    cuda.mem_get_info = lambda *_, **__: (Gpu.memory_bytes, Gpu.memory_bytes)
    _CudaIsMeta().__enter__()
