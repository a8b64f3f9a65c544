"""Training pairs of a scanner with strong shading and gradient distortion, and the guidance maps that tell of them."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .augmentation import RandAcquired
from .geometry import Grid, apply_axes
from .gradients import Coefficients, GradientField, Term
from .guidance_maps import guidance_maps
from .intensity import fit_intensity
from .unwarping import VoxelField, apply_field, unwarping_field, warping_field

HEAD = 220.0  # mm, taken for the longest side of every head: the files of sharp volumes are not asked
RADIUS = 250.0  # mm, reference radius of the made-up coils
# Terms of a made-up coil and their standard deviations; those of degree 3 shift what is 100 mm from the isocentre by
# about 2 mm (0.12 * 250 mm * (100 / 250)^3), those of degree 5 by a tenth of that
_COIL = {("A", 0): 2, ("A", 1): 0, ("A", 3): 0, ("B", 1): 1, ("B", 3): 1}  # kind, order: axis
_STRENGTH = {3: 0.12, 5: 0.06}
_STEP = 10.0  # mm between the places of a crop where the series is evaluated; of degree 5 it is smooth enough


def draw_coil(random: np.random.RandomState, strength: float = 1.0) -> Coefficients:
    """A made-up coil with the terms that the symmetry of real ones leaves, of degrees 3 and 5."""
    terms = [
        Term(kind, degree, order, float(random.normal(0, strength * sd)), axis)
        for degree, sd in _STRENGTH.items()
        for (kind, order), axis in _COIL.items()
    ]
    return Coefficients(RADIUS, tuple(terms))


def draw_log_bias(random: np.random.RandomState, strength: tuple[float, float]) -> Tensor:
    """Coefficients (3, 3, 3) of a log-field in cosines over the field of view; their deviation is drawn evenly."""
    coefficients = torch.from_numpy(random.normal(0, random.uniform(*strength), (3, 3, 3)).astype(np.float32))
    coefficients[0, 0, 0] = 0
    return coefficients


def log_bias_at(coefficients: Tensor, positions: list[Tensor]) -> Tensor:
    """The log-field where ``positions`` say, per axis, in shares of the field of view."""
    order = torch.arange(coefficients.shape[0])
    return apply_axes(coefficients, [torch.cos(torch.pi * p[:, None] * order[None]) for p in positions])


class Scan(NamedTuple):
    """A scanner as one head met it: coefficients of the log-field, of its estimate, the coil, the isocentre in mm."""

    bias: Tensor
    estimate: Tensor
    coil: GradientField | None
    isocentre: np.ndarray


class RandGuidedAcquired(RandAcquired):
    """:class:`bundle.augmentation.RandAcquired` with a scanner that shades and distorts; the label has neither.

    The low view is distorted by a made-up coil around a drawn isocentre, then shaded by a strong field over the whole
    head (its coarse view and the surround of the crop are shaded too, not distorted). Also writes ``fields``, (3, size,
    size, size), see :data:`bundle.networks.super_resolver.FIELDS`. Heads are mirrored left to right, and never turned.

    Args:
        bias: range of the standard deviation of the log-field's coefficients, 26 cosines.
        error: the same of the error of the estimated field; (0, 0) makes the maps the true ones.
        known: share of examples that are distorted, by a coil whose coefficients are known; the others are not.
        strength: of the coil.
        others: see :class:`bundle.augmentation.RandAcquired`.
    """

    def __init__(
        self,
        *others: object,
        bias: tuple[float, float] = (0.02, 0.2),
        error: tuple[float, float] = (0.0, 0.05),
        known: float = 0.7,
        strength: float = 1.0,
        **more: object,
    ) -> None:
        super().__init__(*others, **{"turn": False, **more})
        self.bias, self.error, self.known, self.strength = tuple(bias), tuple(error), known, strength

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        if self.R.rand() < 0.5:
            self._mirror(item)
        volumes = [k for k in (*self.keys, "low", "head") if k in item]
        for key in volumes:
            item[key] = item[key].float()
        if "low" not in item:
            restained = super()._restain(*(item[k] for k in volumes))
            item.update(zip(volumes, restained, strict=True))
        item["scan"] = scan = self._draw_scan()
        shape = item["head"].shape[1:]
        log_bias = log_bias_at(scan.bias, [(torch.arange(n) + 0.5) / n for n in shape])
        inside = item["head"][0] > 0.1
        scan.bias[0, 0, 0] = -log_bias[inside].mean() if inside.any() else 0.0
        scan.estimate[0, 0, 0] += scan.bias[0, 0, 0]
        item["head"] = item["head"] * torch.exp(log_bias + scan.bias[0, 0, 0])
        gain = 1 / fit_intensity(item["head"]).scale
        for key in volumes:
            item[key] = gain * item[key]
        if "level" in item:
            item["level"] = gain * item["level"]
        return super().__call__(item)

    def _mirror(self, item: dict) -> None:
        for key in (*self.keys, "low", "tissue", "head"):
            if key in item:
                item[key] = item[key].flip(1)
        if "centre" in item:
            middle = item["head"].shape[1] * item["step"] - item["centre"][0]
            item["centre"] = [middle, *item["centre"][1:]]

    def _draw_scan(self) -> Scan:
        bias, error = (draw_log_bias(self.R, ends) for ends in (self.bias, self.error))
        error[0, 0, 0] = float(self.R.normal(0, self.error[1] / 2))
        coil = GradientField(draw_coil(self.R, self.strength)) if self.R.rand() < self.known else None
        return Scan(bias, bias + error, coil, self.R.normal(0, [10, 15, 25]))

    def _turn(self, *volumes: Tensor) -> list[Tensor]:
        return list(volumes)

    def _restain(self, *volumes: Tensor) -> list[Tensor]:
        return list(volumes)

    def _place(self, item: Mapping[Hashable, object], shape: torch.Size, voxel: float) -> tuple[list[Tensor], Grid]:
        """Where a crop lies: in shares of the head's field of view per axis, and as a grid around its middle, in mm."""
        sides = [n * item["step"] for n in item["head"].shape[1:]]
        centre = item.get("centre", [n / 2 for n in sides])
        mm, affine = HEAD / max(sides), np.eye(4)
        places = [c + voxel * (torch.arange(n) + 0.5 - n / 2) for c, n in zip(centre, shape, strict=True)]
        for axis, (place, side) in enumerate(zip(places, sides, strict=True)):
            affine[axis, axis], affine[axis, 3] = mm * voxel, mm * (float(place[0]) - side / 2)
        return [p / s for p, s in zip(places, sides, strict=True)], Grid(tuple(shape), affine)

    def _scan(self, views: Tensor, item: Mapping[Hashable, object], voxel: float) -> Tensor:
        scan: Scan = item["scan"]
        positions, grid = self._place(item, views.shape[2:], voxel)
        low = views[0]
        if scan.coil is not None:
            low = apply_field(low, warping_field(scan.coil, grid, scan.isocentre, _STEP), order=1)
        return torch.stack([low * torch.exp(log_bias_at(scan.bias, positions)), views[1]])

    def _maps(self, image: Tensor, item: Mapping[Hashable, object], voxel: float) -> list[Tensor]:
        scan: Scan = item["scan"]
        positions, grid = self._place(item, image.shape[1:], voxel)
        field: VoxelField | None = None
        if scan.coil is not None:
            field = unwarping_field(scan.coil, grid, scan.isocentre, _STEP)
        return [guidance_maps(image, log_bias_at(scan.estimate, positions)[None], field)]
