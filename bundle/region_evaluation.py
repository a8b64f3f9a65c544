"""Networks compared region by region, and what the experts of a mixture do: gate, differences, cost of routing."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .evaluation import Case, make_case, make_simulated_case
from .explain import correlations, explain_tensor
from .geometry import resample
from .inferer import SuperResolutionInferer
from .intensity import match_linearly
from .io import write_json
from .metrics import psnr
from .networks.anatomy import AnatomyExtractor
from .networks.experts import EXPERTS, MixtureDenoiser
from .networks.super_resolver import SuperResolver
from .networks.weights import load
from .regions import regions
from .scores import find_tissue

PROTOCOL, FACTORS = "A", (2, 2, 2)
_ROOT = Path(__file__).resolve().parent.parent


def make_region_cases(item: Mapping, modalities: Sequence[str]) -> list[tuple[Case, Tensor]]:
    """Cases of an item and their regions (3, D, H, W), in the axes of the file.

    The tissue of label maps is known; that of real volumes is what the anatomy extractor finds in the original.
    """
    if item.get("kind") == "label_map":
        cases = [make_simulated_case(item["image"], modality, PROTOCOL, FACTORS) for modality in modalities]
        return [(case, regions(case.tissue[None, None])[0]) for case in cases]
    case = make_case(item["image"], PROTOCOL, FACTORS)
    extractor = load(AnatomyExtractor(), _ROOT / "models" / "model_anatomy.pt")
    tissue = find_tissue(extractor, case, case.reference)
    return [(case, regions(tissue[None, None])[0])]


def quality(case: Case, masks: Tensor, image: Tensor) -> dict[str, float]:
    """PSNR of a result (D, H, W) in the head and in every region; the range is always that of the head."""
    where = {"head": case.mask, **dict(zip(EXPERTS, masks, strict=True))}
    return {name: round(psnr(image, case.reference, mask, case.span), 3) for name, mask in where.items() if mask.any()}


def run(case: Case, network: SuperResolver) -> tuple[Tensor, float]:
    """Result (D, H, W) of a network alone, in the axes of the file, and the seconds of processor time it took."""
    start = time.process_time()
    result = SuperResolutionInferer()(case.interpolated, network, case.condition)
    return case.axes.leave(result)[0, 0], time.process_time() - start


def judge_experts(case: Case, masks: Tensor, network: SuperResolver) -> dict[str, list]:
    """Mean share of every expert (columns) per region (rows), and how the experts' changes correlate in the head."""
    found = explain_tensor(case.interpolated, network, case.condition)
    shares, differences, alone = (
        torch.stack([case.axes.leave(v[:, k : k + 1])[0, 0] for k in range(len(EXPERTS))])
        for v in (found.shares, found.differences, found.alone)
    )
    return {
        "gate": [[round(float(share[mask].mean()), 3) for share in shares] for mask in masks],
        "differences": correlations(differences, case.mask),
        "alone": correlations(alone, case.mask),
    }


def judge(case: Case, masks: Tensor, networks: Mapping[str, SuperResolver], routing: float) -> tuple[list, list]:
    """Rows of quality of every method, and what every mixture's experts do, for one case."""
    cubic = resample(case.low, case.reference.shape, order=3)[0, 0]
    cubic = match_linearly(cubic, case.reference, case.mask) if case.contrast == "7T" else cubic
    head = {"volume": case.name, "modality": case.modality}
    rows, experts = [{**head, "method": "cubic", **quality(case, masks, cubic)}], []
    for name, network in networks.items():
        mixture = isinstance(network.denoiser, MixtureDenoiser)
        for label, threshold in ((f"{name}, sparse", routing), (name, 0.0)) if mixture else ((name, 0.0),):
            if mixture:
                network.denoiser.threshold = threshold
            image, seconds = run(case, network)
            rows.append({**head, "method": label, **quality(case, masks, image), "seconds": round(seconds, 2)})
        if mixture:
            experts.append({**head, "method": name, **judge_experts(case, masks, network)})
    return rows, experts


def evaluate_regions(
    items: Iterable[Mapping],
    networks: Mapping[str, SuperResolver],
    modalities: Sequence[str],
    routing: float,
    folder: Path,
) -> str:
    """Write ``regions.json``; return the tables as Markdown."""
    networks = {name: n.to(memory_format=torch.channels_last_3d) for name, n in networks.items()}
    rows, experts = [], []
    for item in items:
        for case, masks in make_region_cases(item, modalities):
            new, seen = judge(case, masks, networks, routing)
            rows, experts = rows + new, experts + seen
    write_json(folder / "regions.json", {"rows": rows, "experts": experts})
    return "\n\n".join([_quality_table(rows), *(_gate_table(e) for e in experts)])


def _quality_table(rows: Sequence[Mapping]) -> str:
    columns = ("volume", "modality", "method", "head", *EXPERTS, "seconds")
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows])


def _gate_table(found: Mapping) -> str:
    lines = [
        f"{found['method']}, {found['volume']} {found['modality']}: mean share of every expert in every region",
        "",
    ]
    lines += ["| region | " + " | ".join(EXPERTS) + " |", "|" + " --- |" * 4]
    lines += [f"| {n} | " + " | ".join(map(str, row)) + " |" for n, row in zip(EXPERTS, found["gate"], strict=True)]
    lines += ["", f"Correlation of the changes: {found['differences']}; of each expert alone: {found['alone']}"]
    return "\n".join(lines)
