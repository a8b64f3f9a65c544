"""What the machine at hand can do: precision, memory, device."""

import contextlib
import resource
from pathlib import Path

import psutil
import torch

from .errors import InputError

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
# limit, use and what of that is cache which the kernel gives back, of both versions
_CGROUP_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_FAST_BF16 = ("avx512_bf16", "amx_bf16")  # processor features with which bf16 beats fp32


def has_fast_bf16(device: torch.device | str) -> bool:
    """Whether bf16 is worth it: on GPUs and processors that have units for it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(features.get(name, False) for name in _FAST_BF16)


def autocast(device: torch.device | str, enabled: bool = True) -> contextlib.AbstractContextManager:
    """Automatic bf16 where it is worth it; fp16 on GPUs without bf16 where no gradients are; nothing elsewhere."""
    kind = torch.device(device).type
    if enabled and has_fast_bf16(device):
        return torch.autocast(kind, dtype=torch.bfloat16)
    if enabled and kind == "cuda" and not torch.is_grad_enabled():
        return torch.autocast(kind, dtype=torch.float16)
    return contextlib.nullcontext()


class _Share:
    """What part of the machine this process may take: one of so many processes, of at most so many bytes."""

    processes, most = 1, None


def share_machine(processes: int, most: int | None = None) -> None:
    """Tell this process that so many of its kind share the machine, and how many bytes each may take, if that is set.

    :func:`free_memory` of the CPU counts it.
    """
    _Share.processes, _Share.most = max(1, processes), most or None


def free_memory(device: torch.device | str) -> int:
    """Bytes that this process can allocate on ``device`` now.

    Limits of a container or of a batch job (cgroup, version 1 or 2), of the shell (``ulimit -v``) and of
    :func:`share_machine` count.
    """
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    process = psutil.Process().memory_info()
    free = min([int(psutil.virtual_memory().available) // _Share.processes, *_cgroup_free()])
    if _Share.most is not None:
        free = min(free, _Share.most - process.rss)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return max(0, free if limit == resource.RLIM_INFINITY else min(free, limit - process.vms))


def _cgroup_free() -> list[int]:
    """What is left in the control group of this process and in those around it, where they have a limit."""
    try:
        own = dict(line.split(":", 2)[1:] for line in _OWN_CGROUP.read_text().splitlines())
    except (OSError, ValueError):
        own = {}
    free = []
    for controller, limit, used, cache in _CGROUP_FILES:
        inner = Path(own.get(controller, "/"))
        for folder in (inner, *inner.parents):
            group = _CGROUP / controller / str(folder).lstrip("/")
            with contextlib.suppress(OSError, ValueError):
                size = int((group / limit).read_text())  # "max" is no number
                taken = int((group / used).read_text())
                free.append(size - max(0, taken - _stat(group / "memory.stat", cache)))
    return free


def _stat(path: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


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
