"""The picture of the hallucination check: shares of contrast, and single spheres before and after."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..cases import Case
from .insertion import Place

_HALF = 14  # voxels on either side of a sphere that are shown


def draw(
    table: Sequence[Mapping], plain: Case, altered: Case, places: Sequence[Place], results: Mapping[str, Tensor]
) -> Figure:
    """Curves of the recovered share over the radius by contrast and sign, above patches of the first volume."""
    contrasts = list(dict.fromkeys(r["contrast"] for r in table))
    picked = _examples(places)
    columns = max(2 * len(contrasts), 2 + len(results))
    figure = Figure(figsize=(2.5 * columns, 3.6 + 2.3 * len(picked)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[3.6, 2.3 * len(picked)])
    panels = np.atleast_1d(top.subplots(1, 2 * len(contrasts), sharey=True))
    for index, contrast in enumerate(contrasts):
        for shift, sign in enumerate(("bright", "dark")):
            _curves(panels[2 * index + shift], [r for r in table if r["contrast"] == contrast], contrast, sign)
    tops = [r[f"{s}_recovered"] + r[f"{s}_sd"] for r in table for s in ("bright", "dark") if r[f"{s}_count"]]
    panels[0].set_ylim(0, max([1.25, *tops]) + 0.05)
    patches = bottom.subplots(len(picked), 2 + len(results), squeeze=False)
    for line, place in zip(patches, picked, strict=True):
        images = {"without": plain.reference, "with": altered.reference, **results}
        for panel, (name, volume) in zip(line, images.items(), strict=True):
            panel.imshow(_patch(volume, place), cmap="gray", vmin=0, vmax=1.1, origin="lower")
            panel.set_title(f"{name}\n{place.radius:g} mm, {_word(place)}", fontsize=8)
            panel.set_axis_off()
    return figure


def _curves(panel: Axes, rows: Sequence[Mapping], contrast: str, sign: str) -> None:
    for method in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == method and r[f"{sign}_count"]]
        radii, means, deviations = ([r[k] for r in own] for k in ("radius_mm", f"{sign}_recovered", f"{sign}_sd"))
        panel.errorbar(radii, means, deviations, marker="o", markersize=4, linewidth=1, capsize=3, label=method)
    panel.axhline(1, color="0.7", linewidth=0.8)
    panel.set(title=f"{sign}, contrast {contrast}", xlabel="radius, mm")
    panel.set_ylabel("share of the contrast that comes back", fontsize=8)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8, loc="lower right")


def _word(place: Place) -> str:
    return "lesion" if np.isnan(place.contrast) else f"{place.contrast:+.0%}"


def _examples(places: Sequence[Place]) -> list[Place]:
    """One place for every radius, dark and bright in turn, as strong as there are."""
    picked = []
    for index, radius in enumerate(sorted({p.radius for p in places})):
        own = [p for p in places if p.radius == radius and p.contrast != 0]
        if own:
            picked.append(max(own, key=lambda p: (-1) ** index * p.contrast if p.contrast == p.contrast else 0))
    return picked


def _patch(volume: Tensor, place: Place) -> np.ndarray:
    """The plane through a sphere's centre, across the third axis, padded where the volume ends."""
    d, h, w = (int(round(c)) for c in place.centre)
    padded = np.pad(volume[:, :, w].numpy(), _HALF)
    return padded[d : d + 2 * _HALF + 1, h : h + 2 * _HALF + 1].T
