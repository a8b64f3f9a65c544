"""How well the anatomy extractor finds tissue: on simulated heads, on real volumes, on a template with known tissue."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import torch
from torch import Tensor

from .demo import template_path
from .evaluation import Case, make_case, make_simulated_case
from .geometry import CanonicalAxes
from .intensity import fit_intensity
from .io import read_volume, write_json
from .metrics import dice
from .networks.anatomy import TISSUES, AnatomyExtractor
from .scores import find_tissue, tissue_of
from .simulation.protocol import MODALITIES
from .simulation.tissues import INTRACRANIAL

FACTORS = ((2, 2, 2), (1, 1, 3))


def _low(network: AnatomyExtractor, case: Case) -> Tensor:
    """What the main job's tissue map would be, told of the input's factors as there."""
    return find_tissue(network, case, case.axes.leave(case.interpolated)[0, 0], case.factors)


def _row(what: str, modality: str, factors: Iterable[int], found: Tensor, truth: Tensor) -> dict:
    overlap = {name: round(dice(found == i, truth == i), 3) for i, name in enumerate(TISSUES) if name in INTRACRANIAL}
    return {"volume": what, "modality": modality, "factors": "x".join(str(f) for f in factors), **overlap}


def on_simulated(network: AnatomyExtractor, items: Iterable[Mapping], protocol: str = "A") -> list[dict]:
    """Dice per tissue of simulated 1.5 T heads against their label maps, one row per head, modality and factors."""
    rows = []
    for item in items:
        for modality in MODALITIES:
            for factors in FACTORS:
                case = make_simulated_case(item["image"], modality, protocol, factors)
                rows.append(_row(case.name, modality, factors, _low(network, case), case.tissue))
    return rows


def on_real(network: AnatomyExtractor, items: Iterable[Mapping], protocol: str = "A") -> list[dict]:
    """Dice per tissue of degraded real volumes against what the extractor finds in the originals."""
    rows = []
    for item in items:
        for factors in FACTORS:
            case = make_case(item["image"], protocol, factors)
            whole = find_tissue(network, case, case.reference)
            rows.append(_row(case.name, case.modality, factors, _low(network, case), whole))
    return rows


def on_template(network: AnatomyExtractor) -> dict[str, float]:
    """Dice of grey and white matter with the tissue maps of the MNI152 template that the package nilearn ships."""
    path = template_path()
    volume = read_volume(path)
    axes, plain = CanonicalAxes.of(volume.affine.numpy()), volume.as_tensor()[0]
    normalised = fit_intensity(plain, str(path)).normalise(plain)
    spacing = [volume.pixdim.tolist()[i] for i in axes.order]
    found = axes.leave(tissue_of(network, axes.enter(normalised), "T1w", spacing))
    masks = {
        name: torch.isin(found, torch.tensor([TISSUES.index(t) for t in tissues]))
        for name, tissues in (
            ("gm", ("cortical GM", "deep GM", "cerebellar GM")),
            ("wm", ("WM", "cerebellar WM", "brainstem")),
        )
    }
    result = {}
    for name, mask in masks.items():
        share = torch.from_numpy(nib.load(str(path).replace("_t1_", f"_{name}_")).get_fdata())
        result[name] = round(dice(mask, share > 0.5 * share.max()), 3)
    return result


def evaluate_anatomy(network: AnatomyExtractor, simulated: list, real: list, folder: Path) -> dict:
    """All three, printed and written to ``anatomy.json``."""
    content = {"simulated": on_simulated(network, simulated), "real": on_real(network, real)}
    content["template"] = on_template(network)
    write_json(folder / "anatomy.json", content)
    for row in (*content["simulated"], *content["real"], content["template"]):
        print(" ".join(f"{key} {value}" for key, value in row.items()))
    return content
