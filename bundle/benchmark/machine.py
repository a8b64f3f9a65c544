"""What the machine can do at best: the measure for everything else."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch.nn import functional as F

from ..compute import has_fast_bf16

_LONG = 30.0  # seconds
_SHAPES = ((32, 64), (64, 48), (128, 32))  # channels and side of the convolutions that the peak is looked for among


class Seconds(NamedTuple):
    """Of a call: by the clock, and of the processor (all threads), which other work here at the time disturbs less."""

    wall: float
    cpu: float

    @property
    def steady(self) -> float:
        """What rates and shares are computed from: of the processor, or by the clock where a GPU works."""
        return self.cpu or self.wall


def clock(device: torch.device) -> Seconds:
    """Now; on a GPU, when all that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return Seconds(time.perf_counter(), 0.0)
    return Seconds(time.perf_counter(), time.process_time())


def best_time(call: Callable[[], object], repeats: int, device: torch.device) -> Seconds:
    """Least seconds of ``repeats`` calls after one that warms up, which counts if it is the only one or takes long."""
    found = []
    for _ in range(repeats + 1):
        start = clock(device)
        call()
        found.append(Seconds(*(b - a for a, b in zip(start, clock(device), strict=True))))
        if found[0].wall > _LONG:
            break
    found = found[1:] or found
    return Seconds(min(s.wall for s in found), min(s.cpu for s in found))


def describe(device: torch.device) -> dict:
    """Names and sizes, and how busy the machine is with other things."""
    load = Path("/proc/loadavg")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_GB": round(psutil.virtual_memory().total / 1e9, 1),
        "bf16": has_fast_bf16(device),
        "loadavg": load.read_text().split()[:3] if load.exists() else None,
        "torch": torch.__version__,
    }


@torch.no_grad()
def peaks(device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Most GFLOP/s of a 3x3x3 convolution per precision, and GB/s of copying: the two roofs of a roofline.

    On a processor they are per second of a core, as everything that is compared with them.
    """
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and not has_fast_bf16(device):
            continue
        rates = []
        for channels, side in _SHAPES:
            x = torch.rand(1, channels, side, side, side, device=device, dtype=dtype)
            w = torch.rand(channels, channels, 3, 3, 3, device=device, dtype=dtype)
            x, w = (v.contiguous(memory_format=torch.channels_last_3d) for v in (x, w))
            seconds = best_time(lambda x=x, w=w: F.conv3d(x, w, padding=1), repeats, device).steady
            rates.append(54 * channels**2 * side**3 / seconds / 1e9)
        found[f"{name}_GFLOP_s"] = round(max(rates), 1)
    x = torch.rand(2**26, device=device)
    y = torch.empty_like(x)
    found["copy_GB_s"] = round(2 * x.nbytes / best_time(lambda: y.copy_(x), repeats, device).steady / 1e9, 1)
    return found


class PeakMemory:
    """Most bytes in use within the block, in ``bytes``: of the process (Linux), or of tensors on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
            return
        self.bytes = peak_of_process()


def peak_of_process() -> int:
    """Most bytes that this process had in memory since it began or since a :class:`PeakMemory` did; 0 but on Linux.

    (``getrusage`` also counts what the process that started this one had at that moment.)
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
