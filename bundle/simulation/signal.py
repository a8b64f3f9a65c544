"""Signal equations: what a pulse sequence makes of T1, T2, T2* and proton density.

Times are in ms, angles in degrees; tensors of any shape broadcast. Longitudinal magnetisation, in units of its
equilibrium, changes linearly in every part of a sequence, ``m -> a m + b``. A repetition is a chain of such maps, its
steady state the fixed point of the chain: that is all of MPRAGE (Mugler and Brookeman, MRM 1990;15:152) and MP2RAGE
(Marques et al., NeuroImage 2010;49:1271, appendix).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .tissues import Relaxation


class Readout(NamedTuple):
    """A train of spoiled gradient echoes whose middle lies ``time`` ms after the inversion."""

    time: float
    flip_angle: float


def inversion_recovery(
    t1: Tensor,
    readouts: Sequence[Readout],
    repetition_time: float,
    echo_spacing: float,
    pulses: int,
    efficiency: float = 0.96,
    b1: float | Tensor = 1.0,
) -> list[Tensor]:
    """Signed transverse magnetisation at the middle of every readout after one inversion, before T2* decay.

    Args:
        t1: longitudinal relaxation time.
        readouts: in their order.
        repetition_time: from inversion to inversion.
        echo_spacing: between the pulses of a readout.
        pulses: of a readout, an even number.
        efficiency: of the inversion, 1 for a perfect one (0.96 in Marques et al.).
        b1: transmit field relative to the nominal one; it scales the flip angles, not the adiabatic inversion.

    Raises:
        InputError: readouts that do not fit between the inversions.
    """
    half = pulses / 2 * echo_spacing
    ends = [0.0, *(r.time + half for r in readouts)]
    waits = [r.time - half - end for r, end in zip(readouts, ends, strict=False)] + [repetition_time - ends[-1]]
    if min(waits) < 0:
        raise InputError(
            f"{pulses} pulses of {echo_spacing} ms around {[r.time for r in readouts]} ms do not fit into a repetition "
            f"of {repetition_time} ms"
        )
    a, b = torch.full_like(t1, -efficiency), torch.zeros_like(t1)  # the inversion
    middles = []
    for wait, readout in zip(waits, readouts, strict=False):
        angle = torch.as_tensor(b1) * math.radians(readout.flip_angle)
        train = _train(t1, angle, echo_spacing, pulses // 2)
        a, b = _chain((a, b), _recover(t1, wait), train)
        middles.append((a, b, torch.sin(angle)))
        a, b = _chain((a, b), train)
    a, b = _chain((a, b), _recover(t1, waits[-1]))
    steady = b / (1 - a)
    return [(a * steady + b) * sine for a, b, sine in middles]


def _recover(t1: Tensor, time: float) -> tuple[Tensor, Tensor]:
    decay = torch.exp(-time / t1)
    return decay, 1 - decay


def _train(t1: Tensor, angle: Tensor, spacing: float, pulses: int) -> tuple[Tensor, Tensor]:
    """``pulses`` times: a pulse of ``angle``, then ``spacing`` ms of recovery."""
    decay = torch.exp(-spacing / t1)
    a = torch.cos(angle) * decay
    return a**pulses, (1 - decay) * (1 - a**pulses) / (1 - a)


def _chain(*maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Composition, first map first."""
    a, b = maps[0]
    for c, d in maps[1:]:
        a, b = c * a, c * b + d
    return a, b


def mprage(
    tissue: Relaxation,
    inversion_time: float,
    repetition_time: float,
    echo_time: float,
    flip_angle: float,
    echo_spacing: float,
    pulses: int,
    b1: float | Tensor = 1.0,
) -> Tensor:
    """Magnitude of MPRAGE; ``inversion_time`` is counted to the middle of the readout."""
    (m,) = inversion_recovery(
        tissue.t1, [Readout(inversion_time, flip_angle)], repetition_time, echo_spacing, pulses, b1=b1
    )
    return tissue.density * m.abs() * torch.exp(-echo_time / tissue.t2_star)


def mp2rage(
    tissue: Relaxation,
    inversion_times: Sequence[float],
    repetition_time: float,
    flip_angles: Sequence[float],
    echo_spacing: float,
    pulses: int,
    b1: float | Tensor = 1.0,
) -> Tensor:
    """The uniform image of MP2RAGE, ``s1 s2 / (s1^2 + s2^2) + 1/2``, from 0 to 1.

    Proton density, T2* and receive field cancel in the ratio.
    """
    readouts = [Readout(t, f) for t, f in zip(inversion_times, flip_angles, strict=True)]
    first, second = inversion_recovery(tissue.t1, readouts, repetition_time, echo_spacing, pulses, b1=b1)
    return first * second / (first**2 + second**2).clamp_min(1e-12) + 0.5


def spin_echo(
    tissue: Relaxation,
    repetition_time: float,
    echo_time: float,
    echoes: int = 1,
    echo_spacing: float = 10.0,
    b1: float | Tensor = 1.0,
) -> Tensor:
    """Spin echo, or turbo spin echo with ``echoes`` per excitation: ``rho (1 - exp(-t / T1)) exp(-TE / T2)``.

    ``t`` is what remains of the repetition after the last echo: refocusing leaves no longitudinal magnetisation
    behind (Haacke et al., Magnetic Resonance Imaging, 1999, chapters 8 and 19). ``b1`` scales a 90 degree excitation.

    Args:
        tissue: relaxation.
        repetition_time: between excitations.
        echo_time: effective.
        echoes: per excitation.
        echo_spacing: between them.
        b1: transmit field relative to the nominal one.

    Raises:
        InputError: echoes that do not fit into the repetition.
    """
    train = max(echo_time, echoes * echo_spacing if echoes > 1 else 0.0)
    if train >= repetition_time:
        raise InputError(f"an echo train of {train} ms does not fit into a repetition of {repetition_time} ms")
    excited = torch.sin(torch.as_tensor(b1) * math.pi / 2)
    recovered = 1 - torch.exp(-(repetition_time - train) / tissue.t1)
    return tissue.density * excited * recovered * torch.exp(-echo_time / tissue.t2)
