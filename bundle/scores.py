"""Everything a table says of one result: image metrics, tissue overlap, and agreement with the input."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .cases import Case
from .consistency import default_operator
from .metrics import (
    dice,
    gmsd,
    gradient_error,
    high_frequency_ratio,
    histogram_distance,
    local_contrast_error,
    ms_ssim,
    psnr,
    ssim,
)
from .networks.anatomy import TISSUES, AnatomyExtractor
from .networks.super_resolver import encode_condition
from .tissue import AnatomyInferer

# Name: function, what is best (higher, lower, or a value to be near to), what it is
IMAGE_METRICS = {
    "psnr": (psnr, "higher", "PSNR, dB"),
    "ssim": (ssim, "higher", "SSIM"),
    "ms_ssim": (ms_ssim, "higher", "MS-SSIM"),
    "gmsd": (gmsd, "lower", "GMSD"),
    "gradient": (gradient_error, "lower", "gradient error"),
    "high_frequency": (high_frequency_ratio, "near 1", "high-frequency energy, ratio"),
    "histogram": (histogram_distance, "lower", "histogram distance"),
    "local_contrast": (local_contrast_error, "lower", "local contrast error"),
}
DICE_GROUPS = {
    "dice_csf": ("CSF",),
    "dice_gm": ("cortical GM", "deep GM", "cerebellar GM"),
    "dice_wm": ("WM", "cerebellar WM", "brainstem"),
}
BEST = {name: best for name, (_, best, _) in IMAGE_METRICS.items()}
BEST |= {"consistency": "lower", "seconds": "lower", "memory_gb": "lower"} | dict.fromkeys(DICE_GROUPS, "higher")
TITLES = {name: title for name, (_, _, title) in IMAGE_METRICS.items()}
TITLES |= {"dice_csf": "Dice CSF", "dice_gm": "Dice grey matter", "dice_wm": "Dice white matter"}
TITLES |= {"consistency": "distance to the input", "seconds": "seconds", "memory_gb": "memory, GB"}


def image_scores(case: Case, image: Tensor, names: Sequence[str] = tuple(IMAGE_METRICS)) -> dict[str, float]:
    """The metrics of :data:`IMAGE_METRICS`, or some of them, of a result (D, H, W)."""
    truth = case.reference, case.mask, case.span
    return {name: round(IMAGE_METRICS[name][0](image, *truth), 4) for name in names}


def consistency(case: Case, image: Tensor) -> float | None:
    """Root mean square of ``x - A y`` over the range, inside the head; None where the contrast is another.

    ``A`` is the acquisition assumed for scans of unknown protocol. The truth itself does not reach zero: the input is
    noisy, and ``A`` may not be what degraded it.
    """
    if case.contrast != "input":
        return None
    low = case.low[0, 0]
    mask = F.adaptive_avg_pool3d(case.mask[None, None].float(), low.shape)[0, 0] > 0.5
    if not mask.any():
        return None
    operator = default_operator(tuple(case.reference.shape), tuple(low.shape))
    error = (low - operator(image))[mask].square().mean().sqrt()
    return round(float(error) / case.span, 4)


def tissue_of(
    network: AnatomyExtractor,
    image: Tensor,
    modality: str,
    spacing: Sequence[float],
    factors: Sequence[float] = (1, 1, 1),
) -> Tensor:
    """Most probable tissue (D, H, W) of a normalised volume (D, H, W) in canonical axes, of a spacing in mm.

    ``factors`` are its voxels along the side of one of the scan that it was interpolated from.
    """
    condition = encode_condition("7T", modality, factors)[None]
    return AnatomyInferer()(image[None, None], network, condition, spacing=spacing)[0, 0]


def find_tissue(network: AnatomyExtractor, case: Case, image: Tensor, factors: Sequence[float] = (1, 1, 1)) -> Tensor:
    """Most probable tissue (D, H, W) of an image in the axes of a case's file, interpolated by factors along these."""
    spacing, factors = ([v[i] for i in case.axes.order] for v in (case.spacing, factors))
    return case.axes.leave(tissue_of(network, case.axes.enter(image), case.modality, spacing, factors))


def tissue_scores(case: Case, truth: Tensor, found: Tensor) -> dict[str, float]:
    """Dice of fluid, grey and white matter of two maps of tissue groups (D, H, W)."""
    result = {}
    for name, group in DICE_GROUPS.items():
        numbers = torch.tensor([TISSUES.index(g) for g in group])
        result[name] = round(dice(torch.isin(found, numbers), torch.isin(truth, numbers)), 4)
    return result


def scorer(
    case: Case, network: AnatomyExtractor | None, names: Sequence[str] = tuple(IMAGE_METRICS)
) -> Callable[[Tensor], dict]:
    """A function that scores results of one case; the true tissue is found once.

    Args:
        case: with the truth. Its tissue is the truth where it is known; else what the extractor finds in the reference.
        network: the anatomy extractor, or None for no tissue scores.
        names: of the image metrics that are wanted.
    """
    truth = case.tissue
    if network is not None and truth is None:
        truth = find_tissue(network, case, case.reference)

    def score(image: Tensor) -> dict:
        scores = {**image_scores(case, image, names), "consistency": consistency(case, image)}
        if network is None:
            return scores
        return scores | tissue_scores(case, truth, find_tissue(network, case, image))

    return score
