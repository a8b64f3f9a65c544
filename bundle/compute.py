"""What the machine at hand can do: precision, memory, device."""

import contextlib
from pathlib import Path

import psutil
import torch

from .errors import InputError

_CGROUP = Path("/sys/fs/cgroup")
_FAST_BF16 = ("avx512_bf16", "amx_bf16")  # processor features with which bf16 beats fp32


def has_fast_bf16(device: torch.device | str) -> bool:
    """Whether bf16 is worth it: on GPUs and processors that have units for it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(features.get(name, False) for name in _FAST_BF16)


def autocast(device: torch.device | str, enabled: bool = True) -> contextlib.AbstractContextManager:
    """Automatic bf16 where it is worth it; nothing elsewhere."""
    if not (enabled and has_fast_bf16(device)):
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def free_memory(device: torch.device | str) -> int:
    """Bytes that can be allocated on ``device`` now; limits of a container (cgroup v2) count."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return available
    return available if limit == "max" else min(available, int(limit) - int(used))


def pick_device(name: str | None) -> torch.device:
    """Device by name, or CUDA where there is one and the CPU else.

    Raises:
        InputError: unknown name, or CUDA asked for where there is none.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: allowed are cpu, cuda and cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this PyTorch sees no GPU; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def set_threads(threads: int) -> None:
    """Limit the threads of CPU work; 0 leaves PyTorch's choice."""
    if threads:
        torch.set_num_threads(int(threads))
