"""Which modality a volume is: by its name, else by its histogram."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy import ndimage
from torch import Tensor

from .geometry import resample
from .intensity import fit_intensity
from .io import split_name
from .metrics import head_mask

_OTHER = ("FLAIR", "PDW", "PD", "SWI", "T2STAR", "T2STARW", "BOLD", "DWI", "MP2RAGE", "UNIT1", "CT")


def modality_by_name(path: Path) -> str | None:
    """``T1w``, ``T2w`` or ``other`` where the file name says so (``_T1w``, ``-t2``, ``_FLAIR``), else None."""
    for word in reversed(re.split(r"[_\-. ]", split_name(path)[0])):
        if word.upper() in _OTHER:
            return "other"
        match = re.fullmatch(r"T([12])W?", word.upper())
        if match:
            return f"T{match[1]}w"
    return None


def modality_by_histogram(volume: Tensor, spacing: tuple[float, float, float]) -> str:
    """``T2w`` where the deep half of the head has a long bright tail (fluid), else ``T1w``.

    The skewness there was above 1.5 in 7 T2-weighted volumes of 6 sources and below 0.1 in 11 T1-weighted ones of 9;
    the threshold is 0.8. Other contrasts (FLAIR, proton density) look like T1w to it.

    Args:
        volume: (1, D, H, W), any units.
        spacing: mm.
    """
    coarse = resample(volume, [max(16, round(n * s / 3)) for n, s in zip(volume.shape[1:], spacing, strict=True)], 1)[0]
    coarse = fit_intensity(coarse).normalise(coarse)
    depth = ndimage.distance_transform_edt(head_mask(coarse).numpy())
    inner = coarse[torch.from_numpy(depth > 0.5 * depth.max())]
    centred = inner - inner.mean()
    skewness = centred.pow(3).mean() / centred.square().mean().pow(1.5)
    return "T2w" if float(skewness) > 0.8 else "T1w"


def modality_of_acquisition(
    words: Sequence[str], echo: float | None, repetition: float | None, inversion: float | None
) -> str | None:
    """Modality by the words of a DICOM description, else by its times in ms; None where neither tells.

    Long echo and repetition make T2w, short ones of a spin or gradient echo T1w; a long inversion with a long echo is
    FLAIR (Bernstein et al., Handbook of MRI Pulse Sequences, 2004, chapter 14).
    """
    for text in words:
        found = modality_by_name(Path(re.sub(r"[/\s]", "_", text)))
        if found:
            return found
        if re.search(r"mp-?rage|spgr|bravo|mdeft", text, re.I):
            return "T1w"
    if not echo or not repetition:
        return None
    if echo > 70 and repetition > 2000:
        return "other" if inversion and inversion > 1500 else "T2w"
    if echo < 40 and repetition > 1800 and not inversion:
        return "other"  # proton density
    return "T1w" if echo < 30 and repetition < 1000 else None
