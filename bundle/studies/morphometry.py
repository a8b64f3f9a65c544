"""Does a method inflate structures? Volumes of ventricles, grey and white matter in results and in the reference.

The bundle's own anatomy extractor measures all of them, so its errors are in all of them alike: ratios can be looked
at, millilitres cannot be relied on.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor

from ..cases import PROTOCOLS, Case, make_cases
from ..compute import pick_device
from ..errors import InputError
from ..evaluation import classical_methods, markdown, network_method, write_csv
from ..io import prepare_output, write_json
from ..job import load_anatomy, load_model
from ..metrics import dice
from ..networks.anatomy import TISSUES
from ..scores import find_tissue

STRUCTURES = ("ventricles", "grey matter", "white matter")
_GREY, _WHITE = ("cortical GM", "deep GM", "cerebellar GM"), ("WM", "cerebellar WM", "brainstem")
_DEEP = 12.0  # mm below the surface of the brain: fluid there belongs to the ventricles and what is around them


def structures(tissue: Tensor, spacing: Sequence[float]) -> dict[str, Tensor]:
    """Masks (D, H, W) of :data:`STRUCTURES` in a map of tissue groups.

    Ventricles are the fluid that lies deep in the brain: the extractor knows one kind of fluid, and what is near the
    surface of the brain is around it. The deep part of sulci and cisterns counts too.

    Args:
        tissue: uint8, index into ``TISSUES``.
        spacing: mm.
    """
    groups = {name: torch.tensor([TISSUES.index(g) for g in names]) for name, names in (("g", _GREY), ("w", _WHITE))}
    grey, white = (torch.isin(tissue, groups[name]) for name in ("g", "w"))
    fluid = tissue == TISSUES.index("CSF")
    brain = ndimage.binary_fill_holes((grey | white | fluid).numpy())
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    return dict(zip(STRUCTURES, (fluid & torch.from_numpy(depth > _DEEP), grey, white), strict=True))


def volumes(tissue: Tensor, spacing: Sequence[float]) -> dict[str, float]:
    """Millilitres of :data:`STRUCTURES`."""
    voxel = float(np.prod(spacing)) / 1000
    return {name: float(mask.sum()) * voxel for name, mask in structures(tissue, spacing).items()}


def rows_of(case: Case, found: Mapping[str, Tensor], truth: Tensor) -> list[dict]:
    """One row per method and structure.

    Args:
        case: whose spacing counts.
        found: tissue (D, H, W) by method.
        truth: tissue in the reference, by the same extractor.
    """
    wanted, masks = volumes(truth, case.spacing), structures(truth, case.spacing)
    rows = []
    for method, tissue in found.items():
        own, own_masks = volumes(tissue, case.spacing), structures(tissue, case.spacing)
        for name in STRUCTURES:
            ratio = own[name] / wanted[name] - 1 if wanted[name] else float("nan")
            head = {
                "volume": case.name,
                "modality": case.modality,
                "contrast": case.contrast,
                "protocol": case.protocol,
            }
            head |= {"factors": "x".join(f"{f:g}" for f in case.factors), "method": method, "structure": name}
            numbers = {"ml": own[name], "reference_ml": wanted[name], "difference_percent": 100 * ratio}
            numbers |= {"dice": dice(own_masks[name], masks[name])}
            rows.append(head | {k: round(v, 3) for k, v in numbers.items()})
    return rows


def morphometry(items: Iterable[Mapping], folder: Path, factors: Sequence[Sequence[int]], protocol: str) -> list[dict]:
    """Measure, print, and write ``morphometry.csv``, ``morphometry.json`` and ``morphometry.png``.

    Raises:
        InputError: an unknown protocol, or a volume in which the extractor finds no brain.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol!r}: allowed are {', '.join(PROTOCOLS)}")
    folder, anatomy = prepare_output(folder), load_anatomy()
    methods = {"cubic": classical_methods()["cubic"], "bundle": network_method(load_model()[0], pick_device(None))}
    rows = []
    for item in items:
        for case in make_cases(item, [protocol], factors):
            truth = find_tissue(anatomy, case, case.reference)
            if not structures(truth, case.spacing)["white matter"].any():
                raise InputError(
                    f"{case.name}: the extractor finds no white matter in the reference; not a brain scan?"
                )
            found = {name: find_tissue(anatomy, case, method(case)[0, 0]) for name, method in methods.items()}
            rows += rows_of(case, found, truth)
    write_csv(rows, folder / "morphometry.csv")
    write_json(folder / "morphometry.json", {"rows": rows})
    draw(rows).savefig(folder / "morphometry.png", dpi=110)
    print(markdown(rows, tuple(rows[0])))
    return rows


def draw(rows: Sequence[Mapping]) -> Figure:
    """Difference of volumes from the reference in per cent: a panel per structure, a group of bars per case."""
    methods = list(dict.fromkeys(r["method"] for r in rows))
    cases = list(dict.fromkeys((r["volume"], r["modality"], r["factors"]) for r in rows))
    figure = Figure(figsize=(4.2 * len(STRUCTURES), 1.6 + 0.5 * len(cases)), layout="constrained")
    panels = figure.subplots(1, len(STRUCTURES), sharey=True)
    for panel, structure in zip(panels, STRUCTURES, strict=True):
        for shift, method in enumerate(methods):
            place = [i + (shift - (len(methods) - 1) / 2) * 0.36 for i in range(len(cases))]
            own = {(r["volume"], r["modality"], r["factors"]): r for r in rows if r["method"] == method
                   and r["structure"] == structure}  # fmt: skip
            panel.barh(place, [own[c]["difference_percent"] for c in cases], height=0.34, label=method)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set(title=structure, xlabel="volume, % off the reference")
    labels = [f"{name.split('.')[0]}\n{modality} {factors}" for name, modality, factors in cases]
    panels[0].set_yticks(range(len(cases)), labels, fontsize=7)
    panels[0].invert_yaxis()
    panels[-1].legend(frameon=False, fontsize=8)
    return figure
