"""Time against voxels, as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path

_SERIES = {  # label: (key and value that rows must have, ...)
    "student, whole": {"network": "student", "how": "whole", "steps": 1},
    "student, tiles": {"network": "student", "how": "tiles", "steps": 1},
    "student, fp32 NCDHW": {"network": "student", "how": "fp32 NCDHW", "steps": 1},
    "student, 4 steps": {"network": "student", "how": "whole", "steps": 4},
    "student, 8 steps": {"network": "student", "how": "whole", "steps": 8},
    "teacher, whole": {"network": "teacher", "how": "whole", "steps": 1},
}


def voxels(output: str) -> int:
    """Of a size such as 192x224x192."""
    return math.prod(map(int, output.split("x")))


def plot(path: Path, rows: Sequence[dict], commands: Sequence[dict], step: dict | None) -> None:
    """Draw every series of rows, the whole command, and the 50 steps that they are compared with.

    Args:
        path: of the PNG.
        rows: of :func:`bundle.benchmark.network.measure`.
        commands: of :func:`bundle.benchmark.command.time_command`.
        step: of :func:`bundle.benchmark.reference.compare_step`, or None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, wanted in _SERIES.items():
        points = [(voxels(r["output"]), r["model_s"]) for r in rows if wanted.items() <= r.items()]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
    points = sorted((voxels(c["output"]), c["s"]) for c in commands)
    if points:
        axes.plot(*zip(*points, strict=True), marker="s", color="black", label="whole command")
    if step and rows:
        ends = sorted({voxels(r["output"]) for r in rows})
        slope = step["DiffusionModelUNet_s_per_megavoxel_50_steps"] / 1e6
        axes.plot(ends, [slope * n for n in ends], "--", color="grey", label="DiffusionModelUNet, 50 steps (computed)")
    axes.set(xscale="log", yscale="log", xlabel="million voxels of the result", ylabel="seconds")
    for axis, unit in ((axes.xaxis, 1e6), (axes.yaxis, 1)):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _, unit=unit: f"{value / unit:g}")
        axis.set_minor_formatter("")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
