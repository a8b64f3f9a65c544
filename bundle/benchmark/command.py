"""The whole command, from its start to the saved file, in a process of its own, stage by stage."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..geometry import Grid, target_grid
from ..io import write_volume


def time_command(size: Sequence[int], options: Sequence[str] = (), repeats: int = 1) -> dict:
    """Seconds of ``python -m bundle enhance`` on a made-up head of half the size per axis; the fastest run.

    Args:
        size: of the result in voxels.
        options: of the command, such as ``("--max_memory", "1GB")``.
        repeats: runs.
    """
    with tempfile.TemporaryDirectory() as name:
        source = made_up_head(Path(name) / "head_T1w.nii.gz", size)
        runs = []
        for _ in range(repeats):
            command = [sys.executable, "-m", "bundle.benchmark.stages", str(source), name, *options]
            start = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            total = time.perf_counter() - start
            run = json.loads(done.stdout.splitlines()[-1])
            for kind, whole in (("stages_s", total), ("stages_cpu_s", run["cpu_s"])):  # the rest is import
                run[kind] = {"import": round(whole - sum(run[kind].values()), 2), **run[kind]}
            runs.append({"output": "x".join(map(str, size)), "options": " ".join(options), "s": round(total, 2), **run})
    return min(runs, key=lambda run: run["cpu_s"])


def made_up_head(path: Path, size: Sequence[int]) -> Path:
    """An ellipsoid with noise, on a grid from which the default spacing leads to ``size``."""
    grid = target_grid(Grid(tuple(size), np.diag([0.7, 0.7, 0.7, 1.0])), [1.4] * 3)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape), indexing="ij")
    head = sum(a**2 for a in axes) < 0.8
    noise = np.random.default_rng(0).normal(0, 20, grid.shape)
    write_volume(path, (head * 500 + noise).astype(np.float32), grid.affine, (1, 1))
    return path
