"""Plots of an evaluation: a box plot per metric, the worst and the best case with their errors, histograms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .cases import Case
from .scores import BEST, TITLES

_BINS = 80
_PANELS = 12  # histograms shown at most
_ERROR = 0.25  # of the range: the brightest error


class Shown(NamedTuple):
    """What is kept of a case: one plane of every image through the middle of the head, histograms, rows."""

    name: str
    planes: dict[str, np.ndarray]
    histograms: dict[str, np.ndarray]
    edges: np.ndarray
    span: float
    rows: list[Mapping]


class Gallery:
    """Gathers what the plots show while cases come and go; an instance is the ``look`` of an evaluation."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    def __call__(self, case: Case, images: Mapping[str, Tensor], rows: Sequence[Mapping]) -> None:
        everything = {"input": _enlarged(case), **images, "reference": case.reference}
        inside = [(int(i.min()), int(i.max()) + 1) for i in case.axes.enter(case.mask).nonzero().T]
        box = tuple(slice(max(0, a - 3), b + 3) for a, b in inside)
        middle = sum(inside[2]) // 2 + (inside[2][1] - inside[2][0]) // 12
        planes = {k: case.axes.enter(v)[box[0], box[1], middle].T.numpy() for k, v in everything.items()}
        low, high = float(case.reference[case.mask].min()), float(case.reference[case.mask].max())
        edges = np.linspace(low, min(high, low + 1.3 * case.span), _BINS + 1)
        histograms = {k: _histogram(v[case.mask].numpy(), edges) for k, v in everything.items() if k != "input"}
        name = " ".join(
            (case.name.split(".")[0], case.modality, case.contrast, rows[0]["protocol"], rows[0]["factors"])
        )
        self.shown.append(Shown(name, planes, histograms, edges, case.span, list(rows)))

    def draw(self, folder: Path, method: str | None = None) -> list[Path]:
        """Write ``metrics.png``, ``montage.png`` and ``histograms.png``.

        Args:
            folder: where to.
            method: whose best and worst case is shown; default: the last one.
        """
        if not self.shown:
            return []
        method = method or self.shown[0].rows[-1]["method"]
        figures = {"metrics": box_plots([row for s in self.shown for row in s.rows])}
        figures |= {"montage": montage(self.shown, method), "histograms": histograms(self.shown)}
        paths = [folder / f"{name}.png" for name in figures]
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path, dpi=90)
        return paths


def _enlarged(case: Case) -> Tensor:
    """The input on the reference's grid, every voxel as it is."""
    volume = case.low[0, 0]
    for axis, n in enumerate(case.reference.shape):
        index = (torch.arange(n) + 0.5) * volume.shape[axis] / n
        volume = volume.index_select(axis, index.long())
    return volume


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(values, bins=edges)
    return counts / max(1, len(values))


def box_plots(rows: Sequence[Mapping]) -> Figure:
    """One panel per metric: a box per method over all cases, a point per case; colours tell the contrasts apart."""
    metrics = [m for m in BEST if any(_finite(row.get(m)) for row in rows)]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = min(4, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * lines), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        _box_panel(panel, rows, metric, methods)
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    cases = len({tuple(row[k] for k in ("volume", "modality", "protocol", "factors")) for row in rows})
    figure.suptitle(f"{cases} cases; blue: contrast input, orange: contrast 7T", fontsize=10)
    return figure


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _box_panel(panel: Axes, rows: Sequence[Mapping], metric: str, methods: Sequence[str]) -> None:
    values = [[r for r in rows if r["method"] == m and _finite(r.get(metric))] for m in methods]
    boxes = [[float(r[metric]) for r in own] for own in values]
    panel.boxplot(boxes, widths=0.6, showfliers=False, medianprops={"color": "black"})
    for place, own in enumerate(values, start=1):
        shift = np.linspace(-0.15, 0.15, len(own)) if len(own) > 1 else np.zeros(len(own))
        colours = ["tab:blue" if r.get("contrast", "input") == "input" else "tab:orange" for r in own]
        panel.scatter(place + shift, [float(r[metric]) for r in own], s=9, c=colours, zorder=3)
    infinite = [m for m in methods if any(_infinite(r.get(metric)) for r in rows if r["method"] == m)]
    note = f"\ninfinite: {', '.join(infinite)}" if infinite else ""
    panel.set_title(f"{TITLES[metric]} ({BEST[metric]}){note}", fontsize=9)
    panel.set_xticks(range(1, len(methods) + 1), methods, rotation=35, ha="right", fontsize=7)
    panel.tick_params(axis="y", labelsize=7)


def _infinite(value: object) -> bool:
    return isinstance(value, float) and bool(np.isinf(value))


def montage(shown: Sequence[Shown], method: str) -> Figure:
    """The worst and the best case of a method, by what it gains in PSNR over the best other one; errors below."""
    gains = [_gain(s, method) for s in shown]
    worst, best = int(np.argmin(gains)), int(np.argmax(gains))
    picked = [("worst", worst), ("best", best)] if worst != best else [("only", worst)]
    columns = max(len(shown[i].planes) for _, i in picked)
    figure = Figure(figsize=(2.5 * columns, 5.6 * len(picked) + 0.3), layout="constrained", facecolor="black")
    panels = figure.subplots(2 * len(picked), columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for line, (word, index) in enumerate(picked):
        _montage_lines(
            panels[2 * line : 2 * line + 2],
            shown[index],
            f"{word} case:\n" + shown[index].name.replace(" ", "\n", 1),
            gains[index],
        )
    return figure


def _gain(shown: Shown, method: str) -> float:
    own = [float(r["psnr"]) for r in shown.rows if r["method"] == method]
    others = [float(r["psnr"]) for r in shown.rows if not r["method"].startswith(method)]
    if not own or not others or np.isinf(own[0]):
        return float("inf") if own and np.isinf(own[0]) else 0.0
    return own[0] - max(others)


def _montage_lines(panels: np.ndarray, shown: Shown, title: str, gain: float) -> None:
    truth = shown.planes["reference"]
    scores = {r["method"]: f"{float(r['psnr']):.2f} dB" for r in shown.rows}
    low, high = np.percentile(truth, (0.5, 99.8))
    for column, (name, plane) in enumerate(shown.planes.items()):
        panels[0, column].imshow(plane, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower")
        panels[0, column].set_title(f"{name}\n{scores.get(name, '')}", color="white", fontsize=9)
        if name not in ("input", "reference"):
            error = np.abs(plane - truth) / shown.span
            panels[1, column].imshow(error, cmap="inferno", vmin=0, vmax=_ERROR, origin="lower")
    panels[1, 0].text(0, 0.5, f"{title}\n{gain:+.2f} dB against\nthe best other\nmethod.\n\nErrors: black 0,\n"
                      f"yellow {_ERROR:.0%} of\nthe range", color="white", fontsize=8, va="center")  # fmt: skip
    panels[1, 0].set(xlim=(0, 1), ylim=(0, 1))


def histograms(shown: Sequence[Shown]) -> Figure:
    """Histograms inside the head, of the reference (filled) and of every method, one panel per case."""
    picked = shown[:: max(1, -(-len(shown) // _PANELS))]
    columns = min(3, len(picked))
    lines = -(-len(picked) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.6 * lines + 0.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    colours = colormaps["tab10"].colors
    for panel in panels[len(picked) :]:
        panel.set_axis_off()
    for panel, case in zip(panels, picked, strict=False):
        centres = (case.edges[1:] + case.edges[:-1]) / 2
        panel.fill_between(centres, case.histograms["reference"], color="0.85", label="reference")
        methods = [name for name in case.histograms if name != "reference"]
        for colour, name in zip(colours, methods, strict=False):
            panel.plot(centres, case.histograms[name], linewidth=1, color=colour, label=name)
        tops = [np.sort(h)[-4] for h in case.histograms.values()]
        panel.set_ylim(0, 1.3 * max(tops) + 1e-9)
        panel.set_title(case.name, fontsize=8)
        panel.tick_params(labelsize=6)
    panels[0].legend(fontsize=6, frameon=False)
    figure.supxlabel("normalised intensity", fontsize=8)
    figure.supylabel("share of voxels", fontsize=8)
    return figure
