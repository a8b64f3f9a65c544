"""How the two scanners of a simulated pair are set: one target protocol, and ranges for everything that varies.

The target is fixed, because a contrast drawn at random could not be predicted from the input. The input varies over
what hospitals do.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .acquisition import Acquisition
from .signal import mprage, spin_echo
from .tissues import CLASSES, Relaxation, relaxation

MODALITIES = ("T1w", "T2w")

# Of the high field; times in ms, angles in degrees. T1w: a common 7 T MPRAGE; T2w: a 7 T turbo spin echo.
TARGET = {
    "T1w": {
        "sequence": "mprage",
        **{"inversion_time": 1100.0, "repetition_time": 2600.0, "echo_time": 3.0, "flip_angle": 5.0},
        **{"echo_spacing": 7.0, "pulses": 192},
    },
    "T2w": {
        "sequence": "spin_echo",
        **{"repetition_time": 6000.0, "echo_time": 60.0, "echoes": 9, "echo_spacing": 10.0},
    },
}

# Of the low field, each drawn evenly between its ends
INPUT_SEQUENCES = {
    "mprage": {
        "inversion_time": (950.0, 1150.0),
        "repetition_time": (2000.0, 2600.0),
        "echo_time": (2.2, 4.5),
        "flip_angle": (8.0, 12.0),
        "echo_spacing": (6.5, 8.0),
        "pulses": (160, 192),
    },
    "T1w spin_echo": {"repetition_time": (400.0, 700.0), "echo_time": (8.0, 15.0)},
    "T2w spin_echo": {
        "repetition_time": (3000.0, 6500.0),
        "echo_time": (75.0, 110.0),
        "echoes": (8, 16),
        "echo_spacing": (8.0, 12.0),
    },
}
SPIN_ECHO_SHARE = 0.25  # of T1-weighted inputs
FLOW_VOID = 0.25  # what is left of flowing blood's signal in a spin echo

# Of one person: factors on T1, T2 and density of every class (standard deviations, drawn once a class) ...
JITTER = {"t1": 0.03, "t2": 0.05, "density": 0.02}
# ... and smooth variation of T1 within a tissue: standard deviation, and full width at half maximum of its grain in mm
VARIATION = {"amplitude": (0.02, 0.06), "grain": (1.5, 6.0)}
SHAPE = {"rotation": 12.0, "scale": 0.08, "shear": 0.04, "displacement": 3.0}  # degrees, relative, relative, mm (SD)
LESIONS = {"share": 0.15, "count": (1, 12), "radius": (1.0, 4.0)}  # share of heads that get some; mm

# Of the low field's image; widths and factors in voxels of the input
IMAGE = {
    "width": (0.8, 1.25),  # Gaussian, full width at half maximum
    "box": (0.7, 1.0),  # slice profile: below 1 is a gap between slices
    "truncation": (0.75, 1.0),  # share of k-space: Gibbs ringing
    "noise": (0.003, 0.05),  # Rician, relative to white matter (T1w) or cortex (T2w)
    "bias": (0.02, 0.08),  # standard deviation of the coefficients of the log-field
    "b1": (0.0, 0.06),  # the same for the transmit field
    "ghost": (0.01, 0.05),  # strength of motion ghosts, where there are some
    "ghost_share": 0.15,
}
BOX_SHARE, TRUNCATION_SHARE = 0.25, 0.3


def draw(random: np.random.RandomState, modality: str, low_field: float, high_field: float) -> dict[str, Any]:
    """Every parameter of a pair but its grids, as plain numbers that JSON can hold.

    Args:
        random: source of randomness.
        modality: ``T1w`` or ``T2w``.
        low_field: tesla, of the input.
        high_field: tesla, of the target.

    Raises:
        InputError: unknown modality, or a low field that is not below the high one.
    """
    if modality not in MODALITIES:
        raise InputError(f"modality {modality!r}: allowed are {', '.join(MODALITIES)}")
    if low_field > high_field:
        raise InputError(f"low field {low_field} T is above the high field {high_field} T")
    spin = modality == "T2w" or random.rand() < SPIN_ECHO_SHARE
    kind = f"{modality} spin_echo" if spin else "mprage"
    sequence = {name: _between(random, *ends) for name, ends in INPUT_SEQUENCES[kind].items()}
    jitter = {name: np.exp(random.normal(0, sd, len(CLASSES))).tolist() for name, sd in JITTER.items()}
    profiles = [("box" if random.rand() < BOX_SHARE else "gaussian") for _ in range(3)]
    truncated = random.rand() < TRUNCATION_SHARE
    return {
        "modality": modality,
        "low_field": low_field,
        "high_field": high_field,
        "low_sequence": {"sequence": kind.split()[-1], **sequence},
        "high_sequence": TARGET[modality],
        "jitter": jitter,
        "variation": {name: float(random.uniform(*ends)) for name, ends in VARIATION.items()},
        "profile": profiles,
        "width": [float(random.uniform(*IMAGE["box" if p == "box" else "width"])) for p in profiles],
        "truncation": [float(random.uniform(*IMAGE["truncation"])) if truncated else 1.0 for _ in range(3)],
        "noise": float(np.exp(random.uniform(*np.log(IMAGE["noise"])))),
        "bias": (random.normal(0, random.uniform(*IMAGE["bias"]), (3, 3, 3))).tolist(),
        "b1": (random.normal(0, random.uniform(*IMAGE["b1"]), (3, 3, 3))).tolist(),
        "ghost": _ghost(random),
        "seed": int(random.randint(2**31)),  # of noise and texture
    }


def _between(random: np.random.RandomState, low: float, high: float) -> float | int:
    if isinstance(low, int):
        return 2 * int(random.randint(low // 2, high // 2 + 1))
    return float(random.uniform(low, high))


def _ghost(random: np.random.RandomState) -> dict[str, float] | None:
    if random.rand() >= IMAGE["ghost_share"]:
        return None
    strength = float(random.uniform(*IMAGE["ghost"]) * random.choice((-1, 1)))
    return {"axis": int(random.randint(3)), "strength": strength, "copies": int(random.randint(2, 9))}


def acquisition(parameters: dict[str, Any]) -> Acquisition:
    """The input's acquisition without noise, which needs the image's scale."""
    names = ("profile", "width", "truncation")
    return Acquisition(**{name: tuple(parameters[name]) for name in names})


def signals(parameters: dict[str, Any], which: str, t1_factor: float = 1.0, b1: float = 1.0) -> Tensor:
    """Signal of every class at one field, with this person's jitter, ``(len(CLASSES),)``; white matter is 1.

    Args:
        parameters: of :func:`draw`.
        which: ``low`` or ``high``.
        t1_factor: on all T1, for the slope of the signal with T1.
        b1: transmit field, for the slope with B1.
    """
    tissue = relaxation(parameters[f"{which}_field"])
    jitter = {name: torch.tensor(values) for name, values in parameters["jitter"].items()}
    tissue = Relaxation(
        tissue.t1 * jitter["t1"], tissue.t2 * jitter["t2"], tissue.t2_star, tissue.density * jitter["density"]
    )
    sequence = dict(parameters[f"{which}_sequence"])
    equation = {"mprage": mprage, "spin_echo": spin_echo}[sequence.pop("sequence")]
    white = equation(tissue, **sequence)[CLASSES.index("WM")]
    values = equation(tissue._replace(t1=tissue.t1 * t1_factor), **sequence, b1=b1) / white
    if equation is spin_echo:
        values[CLASSES.index("vessel")] *= FLOW_VOID
    return values


def expected_signals(modality: str, field: float = 7.0) -> Tensor:
    """Signal of every class in the target protocol, of a person without jitter, ``(len(CLASSES),)``."""
    jitter = {name: [1.0] * len(CLASSES) for name in JITTER}
    return signals({"high_field": field, "jitter": jitter, "high_sequence": TARGET[modality]}, "high")
