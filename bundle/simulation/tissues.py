"""Tissue classes, the label numbers that mean them, and their relaxation times at 1.5, 3 and 7 T."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

CLASSES = (
    "background", "CSF", "cortical GM", "deep GM", "pallidum", "WM", "cerebellar GM", "cerebellar WM", "brainstem",
    "WM lesion", "choroid plexus", "vessel", "optic pathway", "spinal cord", "compact bone", "spongy bone", "eye",
    "soft tissue", "mucosa", "skin", "fat",
)  # fmt: skip

# What the anatomy extractor tells apart, and the classes of each; "other" holds all that is left
GROUPS = {
    "background": ("background",),
    "CSF": ("CSF", "choroid plexus"),
    "cortical GM": ("cortical GM",),
    "deep GM": ("deep GM", "pallidum"),
    "WM": ("WM", "WM lesion"),
    "cerebellar GM": ("cerebellar GM",),
    "cerebellar WM": ("cerebellar WM",),
    "brainstem": ("brainstem",),
    "skull": ("compact bone", "spongy bone"),
    "fat": ("fat",),
    "other": ("vessel", "optic pathway", "spinal cord", "eye", "soft tissue", "mucosa", "skin"),
}
INTRACRANIAL = ("CSF", "cortical GM", "deep GM", "WM", "cerebellar GM", "cerebellar WM", "brainstem")
GROUP_OF_CLASS = torch.tensor([[c in group for group in GROUPS.values()].index(True) for c in CLASSES]).byte()

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
    "fat": (),  # no map names it: `rendering.add_fat` finds it in the soft tissue
}

# Pairs of left and right numbers; all others mean both sides
SIDES = (
    (2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53), (18, 54),
    (25, 57), (26, 58), (28, 60), (30, 62), (31, 63), (136, 163), (137, 164),
)  # fmt: skip

FIELDS = (1.5, 3.0, 7.0)  # tesla, of the numbers below

# Sources; "assumed" marks a number without a measurement that fits, set beside its neighbours.
SOURCES = {
    "W": "Wright et al., MAGMA 2008;21:121: T1 by MPRAGE, mean of putamen and caudate",
    "M": "Wright et al. at 1.5 T; at 3 and 7 T Marques et al., NeuroImage 2010;49:1271",
    "R": "Rooney et al., MRM 2007;57:308: T1 (pallidum: 3 T on their power law; CSF: the same at all fields)",
    "C": "Cox and Gowland, MRM 2010;64:1440: T2 (cortex: mean of frontal and occipital)",
    "G": "van Gelderen et al., MRM 2023: R2 = 9 + (0.9 + 2e4 Fe + 5.7 lipid) B0 per second, with mass fractions of "
    "iron of Hallgren and Sourander, J Neurochem 1958;3:41 (9.1e-5 deep GM, 21.3e-5 pallidum) and 0.06 lipid",
    "P": "Peters et al., MRI 2007;25:748: T2* (deep GM: mean of putamen and caudate)",
    "O": "Oros-Peusquens et al., Front Neurol 2019;10:1333: water content of WM and GM",
    "S": "Stanisz et al., MRM 2005;54:507: 1.5 and 3 T; 7 T grown like white matter (T1), shrunk like C (T2)",
    "Z": "Zhang et al., MRM 2013;70:1082: T1 of blood",
    "F": "Spijkerman et al., MAGMA 2018;31:415: T2 of CSF at 3 and 7 T, rounded; 1.5 T as 3 T",
    "B": "de Bazelaire et al., Radiology 2004;230:652: 1.5 and 3 T; 7 T assumed",
    "A": "assumed",
}


class Tissue(NamedTuple):
    """T1, T2 and T2* in ms at the three :data:`FIELDS`, proton density relative to water, keys of :data:`SOURCES`."""

    t1: tuple[float, float, float]
    t2: tuple[float, float, float]
    t2_star: tuple[float, float, float]
    density: float
    sources: str  # of T1, T2, T2*, density


_GM = Tissue((1197, 1350, 1920), (83.5, 72, 46.5), (84, 66, 33.2), 0.837, "MCPO")
_WM = Tissue((646, 810, 1150), (80, 71, 47), (66.2, 53.2, 26.8), 0.691, "MCPO")
_CSF = Tissue((4300, 4300, 4300), (2000, 2000, 1050), (1000, 700, 300), 1.0, "RFAO")

TISSUES = {
    "background": Tissue((1000, 1000, 1000), (50, 50, 50), (10, 10, 10), 0.0, "AAAA"),
    "CSF": _CSF,
    "cortical GM": _GM,
    "deep GM": Tissue((1096, 1364, 1664), (74, 55, 33), (57, 36, 18), 0.82, "WGPA"),
    "pallidum": Tissue((746, 973, 1347), (57, 38, 21), (35, 20, 9), 0.76, "RGAA"),
    "WM": _WM,
    "cerebellar GM": _GM._replace(sources="AAAA"),
    "cerebellar WM": _WM._replace(sources="AAAA"),
    "brainstem": Tissue((700, 905, 1210), (80, 71, 47), (66, 53, 27), 0.72, "AAAA"),
    "WM lesion": Tissue((1000, 1300, 1650), (150, 135, 90), (110, 90, 50), 0.82, "AAAA"),
    "choroid plexus": Tissue((1500, 1900, 2300), (180, 160, 110), (100, 80, 45), 0.88, "AAAA"),
    "vessel": Tissue((1480, 1649, 2087), (290, 275, 100), (150, 80, 30), 0.85, "ZSAA"),
    "optic pathway": Tissue((815, 1083, 1455), (77, 78, 52), (60, 50, 27), 0.72, "SSAA"),
    "spinal cord": Tissue((745, 993, 1334), (74, 78, 52), (60, 50, 27), 0.72, "SSAA"),
    "compact bone": Tissue((250, 250, 250), (0.5, 0.5, 0.5), (0.4, 0.4, 0.4), 0.15, "AAAA"),
    "spongy bone": Tissue((549, 586, 650), (49, 49, 40), (12, 8, 4), 0.55, "BBAA"),
    "eye": _CSF._replace(sources="AAAA"),
    "soft tissue": Tissue((1008, 1412, 1850), (44, 50, 33), (35, 30, 18), 0.79, "SSAA"),
    "mucosa": Tissue((1100, 1450, 1850), (110, 100, 70), (40, 30, 15), 0.85, "AAAA"),
    "skin": Tissue((750, 950, 1250), (35, 33, 25), (18, 14, 8), 0.65, "AAAA"),
    "fat": Tissue((343, 382, 550), (58, 68, 50), (30, 25, 14), 0.65, "BBAA"),
}


class Relaxation(NamedTuple):
    """T1, T2, T2* (ms) and proton density of every class at one field, each of shape ``(len(CLASSES),)``."""

    t1: Tensor
    t2: Tensor
    t2_star: Tensor
    density: Tensor


def relaxation(field: float) -> Relaxation:
    """Relaxation of all classes at ``field`` tesla.

    Between the measured fields times follow a power law of the field (a line in logarithms), as T1 does in tissue
    (Bottomley et al., Medical Physics 1984).

    Raises:
        InputError: a field outside 1.5 to 7 T.
    """
    if not FIELDS[0] <= field <= FIELDS[-1]:
        raise InputError(f"field {field} T: relaxation times are known from {FIELDS[0]} to {FIELDS[-1]} T")
    upper = 1 if field <= FIELDS[1] else 2
    fields = torch.tensor(FIELDS).log()
    share = float((torch.tensor(field).log() - fields[upper - 1]) / (fields[upper] - fields[upper - 1]))
    rows = [TISSUES[name] for name in CLASSES]
    times = torch.tensor([[row.t1, row.t2, row.t2_star] for row in rows], dtype=torch.float32).log()
    t1, t2, t2_star = torch.lerp(times[..., upper - 1], times[..., upper], share).exp().unbind(1)
    return Relaxation(t1, t2, t2_star, torch.tensor([row.density for row in rows]))


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
