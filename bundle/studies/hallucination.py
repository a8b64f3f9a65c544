"""How much of a small structure a method brings back, and how often it shows one where nothing was.

Every volume is degraded twice, with the same noise: as it is, and with spheres or lesions in it. The difference of the
two results is what the method made of them, whatever anatomy lies around.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cases import PROTOCOLS, Case, make_case, make_simulated_case
from ..compute import pick_device
from ..errors import InputError
from ..evaluation import Restorer, classical_methods, network_method, write_csv
from ..intensity import match_linearly, percentiles
from ..io import prepare_output, write_json
from ..job import load_model
from ..simulation.protocol import MODALITIES
from .hallucination_plots import draw
from .insertion import Place, ball, plan_lesions, plan_spheres, put_lesions, put_spheres

FALSE = 0.05  # of the range: a blob this strong that the reference lacks is a false structure
_SHELL = 2.0  # mm around a sphere, for what a blob stands out from


def with_and_without(item: Mapping, protocol: str, factors: Sequence[int], seed: int) -> Iterable[tuple]:
    """Cases of an item: without anything, with it, and the places; one for a volume, one per modality for a map."""
    places: list[Place] = []

    def spheres(sharp: Tensor, spacing: Sequence[float]) -> Tensor:
        places[:] = plan_spheres(sharp, spacing, seed)
        return put_spheres(sharp, places, spacing, float(np.ptp(percentiles(sharp, (0.1, 99.9)))))

    def lesions(fine: Tensor, spacing: Sequence[float]) -> Tensor:
        places[:] = plan_lesions(fine, spacing, seed)
        return put_lesions(fine, places, spacing)

    if item.get("kind") == "label_map":
        for modality in MODALITIES:
            settings = item["image"], modality, protocol, factors
            yield make_simulated_case(*settings), make_simulated_case(*settings, alter=lesions), list(places)
    else:
        settings = item["image"], protocol, factors
        yield make_case(*settings), make_case(*settings, alter=spheres), list(places)


def blob(volume: Tensor, place: Place, spacing: Sequence[float]) -> float:
    """How far the mean inside a sphere stands out from the mean of the shell around it."""
    slices, outer = ball(volume.shape, place, spacing, place.radius + _SHELL)
    inner = torch.zeros(volume.shape)
    own, share = ball(volume.shape, place, spacing)
    inner[own] = share
    inner = inner[slices]
    shell = (outer - inner).clamp_min(0)
    part = volume[slices]
    return float((part * inner).sum() / inner.sum() - (part * shell).sum() / shell.sum())


def judge(plain: Case, altered: Case, places: Sequence[Place], results: tuple[Tensor, Tensor], method: str) -> list:
    """One row per place: what was put there, what of it came back, or what appeared.

    Args:
        plain: case without anything.
        altered: case with it.
        places: of spheres, lesions and controls.
        results: (D, H, W), of the two cases.
        method: its name.
    """
    added, found = altered.reference - plain.reference, results[1] - results[0]
    error = results[0] - plain.reference
    head = {"volume": plain.name, "modality": plain.modality, "contrast": plain.contrast, "method": method}
    head["factors"] = "x".join(str(f) for f in plain.factors)
    rows = []
    for place in places:
        row = {**head, "radius_mm": place.radius, "control": place.contrast == 0}
        if place.contrast == 0:
            row["appeared"] = round(blob(error, place, plain.spacing) / plain.span, 4)
        else:
            slices, share = ball(added.shape, place, plain.spacing)
            wanted = float((added[slices] * share).sum() / share.sum())
            if abs(wanted) < 0.01 * plain.span:  # a lesion that this scan cannot see
                continue
            came = float((found[slices] * share).sum() / share.sum())
            row |= {"put": round(wanted / plain.span, 4), "recovered": round(came / wanted, 4)}
        rows.append(row)
    return rows


def summarise(rows: Sequence[Mapping]) -> list[dict]:
    """Per contrast, method and radius: share of contrast recovered by sign, and how often something appeared."""
    table = []
    methods = list(dict.fromkeys(r["method"] for r in rows))
    keys = {(r["contrast"], r["method"], r["radius_mm"]) for r in rows}
    for contrast, method, radius in sorted(keys, key=lambda k: (k[0], methods.index(k[1]), k[2])):
        own = [r for r in rows if (r["contrast"], r["method"], r["radius_mm"]) == (contrast, method, radius)]
        row = {"contrast": contrast, "method": method, "radius_mm": radius}
        for sign, name in ((1, "bright"), (-1, "dark")):
            shares = [r["recovered"] for r in own if not r["control"] and sign * r["put"] > 0]
            row[f"{name}_count"] = len(shares)
            row[f"{name}_recovered"] = round(float(np.mean(shares)), 3) if shares else ""
            row[f"{name}_sd"] = round(float(np.std(shares)), 3) if shares else ""
        appeared = np.array([r["appeared"] for r in own if r["control"]])
        row["controls"] = len(appeared)
        row["false"] = int((np.abs(appeared) > FALSE).sum())
        row["largest_false"] = round(float(np.abs(appeared).max()), 3) if len(appeared) else ""
        table.append(row)
    return table


def hallucination(
    items: Iterable[Mapping], folder: Path, factors: Sequence[Sequence[int]], protocol: str, seed: int = 0
) -> list[dict]:
    """Measure, print, and write ``hallucination.csv`` (places), ``hallucination_table.csv`` and ``hallucination.png``.

    Raises:
        InputError: an unknown protocol, or a volume without a flat place.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol!r}: allowed are {', '.join(PROTOCOLS)}")
    folder, rows, shown = prepare_output(folder), [], None
    methods = {k: v for k, v in classical_methods().items() if k != "trilinear"}
    methods["bundle"] = network_method(load_model()[0], pick_device(None))
    for item in items:
        if "image" not in item:
            raise InputError(f"{item['high']}: a pair; spheres are put into sharp volumes or label maps only")
        for factor in factors:
            for plain, altered, places in with_and_without(item, protocol, factor, seed):
                if not places:
                    raise InputError(f"{plain.name}: no flat place in it to put a sphere; not a brain scan?")
                results = {name: _restored(method, name, plain, altered) for name, method in methods.items()}
                for name, pair in results.items():
                    rows += judge(plain, altered, places, pair, name)
                shown = shown or (plain, altered, places, {k: v[1] for k, v in results.items()})
    table = summarise(rows)
    write_csv(rows, folder / "hallucination.csv")
    write_csv(table, folder / "hallucination_table.csv")
    write_json(folder / "hallucination.json", {"table": table, "rows": rows})
    draw(table, *shown).savefig(folder / "hallucination.png", dpi=110)
    for row in table:
        print(" ".join(f"{k} {v}" for k, v in row.items()))
    return table


def _restored(method: Restorer, name: str, plain: Case, altered: Case) -> tuple[Tensor, Tensor]:
    """Results of both cases; methods without a network are fitted to the other contrast as in the tables."""
    results = [method(case)[0, 0] for case in (plain, altered)]
    if plain.contrast == "7T" and name != "bundle":
        results = [match_linearly(r, c.reference, c.mask) for r, c in zip(results, (plain, altered), strict=True)]
    return tuple(results)
