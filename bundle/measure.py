"""Seconds and memory of a call."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil
import torch

_INTERVAL = 0.01  # seconds between looks at the memory


class Measured(NamedTuple):
    """What a call returned, its seconds by the clock, and the GB it needed beyond what was there before."""

    result: object
    seconds: float
    gigabytes: float


def measured(call: Callable[[], object], device: torch.device | str = "cpu") -> Measured:
    """Run a call and watch it.

    On the CPU memory is the largest resident set, looked at a hundred times a second, less that at the start; on a GPU
    what PyTorch allocated. What another thread of this process takes meanwhile counts too.
    """
    cuda = torch.device(device).type == "cuda"
    process, stop = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(_INTERVAL):
            peak = max(peak, process.memory_info().rss)

    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        result = call()
        if cuda:
            torch.cuda.synchronize()
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    peak = max(peak, process.memory_info().rss)
    used = torch.cuda.max_memory_allocated() if cuda else peak - before
    return Measured(result, seconds, max(0, used) / 1e9)
