"""Tissue classes and the label numbers that mean them."""

import torch
from torch import Tensor

from ..errors import InputError

CLASSES = (
    "background", "CSF", "cortical GM", "deep GM", "pallidum", "WM", "cerebellar GM", "cerebellar WM", "brainstem",
    "WM lesion", "choroid plexus", "vessel", "optic pathway", "spinal cord", "compact bone", "spongy bone", "eye",
    "soft tissue", "mucosa", "skin",
)  # fmt: skip

# FreeSurfer numbers, the extra-cerebral ones of the SynthSeg training maps, and the merged sides of the SynthSR maps
LABELS = {
    "background": (0,),
    "CSF": (4, 43, 5, 44, 14, 15, 72, 24),
    "cortical GM": (3, 42, 17, 53, 18, 54, 29),
    "deep GM": (10, 49, 11, 50, 12, 51, 26, 58, 28, 60),
    "pallidum": (13, 52),
    "WM": (2, 41),
    "cerebellar GM": (8, 47),
    "cerebellar WM": (7, 46),
    "brainstem": (16,),
    "WM lesion": (25, 57),
    "choroid plexus": (31, 63, 136, 137, 163, 164),
    "vessel": (30, 62, 502, 514),
    "optic pathway": (85, 530),
    "spinal cord": (512,),
    "compact bone": (515,),
    "spongy bone": (516,),
    "eye": (506,),
    "soft tissue": (507, 508),
    "mucosa": (509,),
    "skin": (511,),
}


def to_classes(labels: Tensor, name: str = "label map") -> Tensor:
    """Label numbers to indices into :data:`CLASSES`, as uint8.

    Args:
        labels: whole numbers of FreeSurfer, SynthSeg or SynthSR maps, any shape.
        name: file, for the message.

    Raises:
        InputError: a number that no class holds.
    """
    numbers = torch.unique(labels).long()
    table = {number: CLASSES.index(tissue) for tissue, group in LABELS.items() for number in group}
    unknown = [int(n) for n in numbers if int(n) not in table]
    if unknown:
        raise InputError(f"{name}: labels {unknown[:20]} are unknown; allowed are FreeSurfer and SynthSeg numbers")
    lookup = torch.zeros(int(numbers.max()) + 1, dtype=torch.uint8)
    for number in numbers.tolist():
        lookup[number] = table[number]
    return lookup[labels.long()]
