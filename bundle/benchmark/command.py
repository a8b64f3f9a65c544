"""The whole command, from its start to the saved file, in a process of its own, stage by stage."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..geometry import Grid, target_grid
from ..io import write_volume

STAGES = ("configure", "read", "resample", "model", "project", "write")
_METHODS = {  # what ends which stage
    "LoadVolumed": "read",
    "ToTargetGridd": "resample",
    "ProjectBackd": "project",
    "SaveResultd": "write",
}


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
            command = [sys.executable, "-m", "bundle.benchmark.command", str(source), name, *options]
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


class _Watch:
    """Seconds of each stage, by the clock and of the processor: from the end of the one before to its own."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {stage: [0.0, 0.0] for stage in STAGES}
        self.last = self._now()

    def mark(self, stage: str) -> None:
        """A stage is over."""
        now = self._now()
        self.stages[stage] = [s + b - a for s, a, b in zip(self.stages[stage], self.last, now, strict=True)]
        self.last = now

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def wrap(self, owner: type, method: str, stage: str) -> None:
        """Let a method end a stage."""
        original = getattr(owner, method)

        def watched(*args: object, **kwargs: object) -> object:
            result = original(*args, **kwargs)
            self.mark(stage)
            return result

        setattr(owner, method, watched)


def main(source: str, folder: str, *options: str) -> None:
    """Run the command in this process and print, as its last line, what each stage took."""
    from ..lean import import_monai

    import_monai()
    from monai.bundle import ConfigWorkflow

    from .. import inferer, transforms
    from ..job import enhance

    watch = _Watch()  # what was before is the import
    watch.wrap(ConfigWorkflow, "initialize", "configure")
    watch.wrap(inferer.SuperResolutionInferer, "__call__", "model")
    for name, stage in _METHODS.items():
        watch.wrap(getattr(transforms, name), "__call__", stage)
    words = [word.removeprefix("--") for word in options]
    enhance(source, folder, **{"overwrite": "true", **dict(zip(words[::2], words[1::2], strict=True))})
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "peak_GB": round(used.ru_maxrss * 1024 / 1e9, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "stages_s": {stage: round(s, 2) for stage, (s, _) in watch.stages.items()},
        "stages_cpu_s": {stage: round(s, 2) for stage, (_, s) in watch.stages.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
