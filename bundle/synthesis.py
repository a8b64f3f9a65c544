"""MONAI transform that makes sharp volumes, and pairs of two fields, of label maps; over :mod:`bundle.simulation`."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from .geometry import apply_axes, gaussian_matrix
from .intensity import fit_intensity
from .networks.context import coarse_view, view_step
from .simulation.protocol import MODALITIES, draw, signals
from .simulation.rendering import add_lesions, brain_mask, deform, draw_shape, render, smooth_noise
from .simulation.tissues import CLASSES, GROUP_OF_CLASS, GROUPS, INTRACRANIAL

_ORDERS = {"T1w": {"CSF": 0.2, "GM": 0.6, "WM": 0.95}, "T2w": {"CSF": 0.95, "GM": 0.55, "WM": 0.35}}
_GAIN = 0.08  # standard deviation of the logarithm of how far normalisation is off
_HEAD = 200.0  # mm, over which the control points of a deformation are spread


class RandRenderd(Randomizable, MapTransform):
    """Turn a crop of fine tissue classes into sharp volumes; leave images as they are.

    The voxel size is drawn between that of the fine map and twice as much, the head is warped a little. Then either

    - a pair: the crop at 7 T replaces the classes, what 1.5 to 3 T see of it comes under ``low``, by the physics of
      :mod:`bundle.simulation`, or
    - one volume of random contrast, half the time in the order of a T1-weighted or T2-weighted scan.

    Some crops are then cut down to the brain, as skull-stripping tools leave them: with a hard edge. Intensities are
    scaled as normalisation of the whole head would scale them; ``head`` becomes its coarse view (and ``step`` its
    voxel), ``voxel`` tells how many fine voxels go along the side of a voxel, ``tissue`` the tissue groups (1, size,
    size, size), ``level`` the scale of a pair.

    Args:
        keys: (1, n, n, n) uint8, ``n`` twice ``size``, voxels of half a millimetre, with its whole head under ``head``.
        size: side of the result.
        pairs: share of pairs.
        stripped: share of crops without skull.
        spacing: mm of the fine map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        pairs: float = 0.8,
        stripped: float = 0.3,
        spacing: float = 0.5,
    ) -> None:
        super().__init__(keys)
        self.size, self.pairs, self.stripped, self.spacing = size, pairs, stripped, spacing

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        if item.get("kind") != "label_map":
            return item
        pair, stripped = self.R.rand() < self.pairs, self.R.rand() < self.stripped
        item["modality"] = modality = (*MODALITIES, "other", "other")[self.R.randint(2 if pair else 4)]
        for key in self.key_iterator(item):
            classes, item["head"] = self._warp(item[key][0], item["head"][0], item["step"], item.get("centre"))
            if pair:
                parameters = draw(self.R, modality, float(self.R.uniform(1.5, 3.0)), 7.0)
                classes, _ = add_lesions(classes, self.R, [self.spacing] * 3)
                means = signals(parameters, "low")
                views = torch.stack(render(classes, parameters, [self.spacing] * 3))
            else:
                means = torch.from_numpy(self._means(modality).astype(np.float32))
                views = self._contrast(classes, means)
            head, gain = self._normalise(means[item["head"].int()] * self._kept(item["head"], stripped))
            tissue = GROUP_OF_CLASS[classes.int()]
            if stripped:
                mask = brain_mask(classes, int(self.R.randint(4, 10)), int(self.R.randint(2, 8)))
                views, tissue = views * mask, tissue * mask.byte()
            matrix = gaussian_matrix(classes.shape[-1], self.size, classes.shape[-1] / self.size)
            views = gain * apply_axes(views, [matrix] * 3).clamp_min(0)
            nearest = ((torch.arange(self.size) + 0.5) * classes.shape[-1] / self.size).long()
            item["voxel"] = classes.shape[-1] / self.size
            item["step"] = item["step"] * view_step(item["head"])
            item[key], item["head"], item["tissue"] = views[-1:], head, _pick(tissue, nearest)[None]
            if pair:
                item["low"], item["level"] = views[:1], gain  # white matter is 1 at both fields before the gain
        return item

    def _normalise(self, head: Tensor) -> tuple[Tensor, float]:
        """Coarse view of the normalised head, and the factor that normalised it, a little off as it may be."""
        gain = float(np.exp(self.R.normal(0, _GAIN))) / fit_intensity(head).scale
        return coarse_view(gain * head[None])[0], gain

    @staticmethod
    def _kept(classes: Tensor, stripped: bool) -> Tensor:
        """What skull stripping leaves of the whole head, 0 or 1."""
        keep = torch.tensor([not stripped or name in INTRACRANIAL for name in GROUPS])
        return keep.float()[GROUP_OF_CLASS[classes.int()].int()]

    def _warp(self, classes: Tensor, head: Tensor, step: int, centre: Sequence[float]) -> tuple[Tensor, Tensor]:
        """A random voxel size: the middle of the crop; a random shape: an affine, and less of a smooth deformation.

        The head (1, d, h, w), whose voxels are ``step`` fine ones, turns with its crop about the crop's ``centre``.
        """
        side = int(self.R.randint(self.size, classes.shape[-1] + 1))
        reach = min(classes.shape[-1], side + side // 5)  # what the deformation may pull in
        shape = draw_shape(self.R)
        head = deform(head, shape, [step * self.spacing] * 3, [c / step - 0.5 for c in centre])
        shape["displacement"] = (np.array(shape["displacement"]) * reach * self.spacing / _HEAD).tolist()
        return _middle(deform(_middle(classes, reach), shape, [self.spacing] * 3), side), head[None]

    def _contrast(self, classes: Tensor, means: Tensor) -> Tensor:
        """One volume, (1, n, n, n), of a mean per class and texture within tissue."""
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        texture = smooth_noise(classes.shape, self.R.uniform(2, 8), generator)
        return torch.where(classes > 0, means[classes.int()] + float(self.R.uniform(0, 0.06)) * texture, 0)[None]

    def _means(self, modality: str) -> np.ndarray:
        means = self.R.uniform(0, 1, len(CLASSES))
        if modality in _ORDERS:
            for index, name in enumerate(CLASSES):
                tissue = next((t for t in ("CSF", "GM", "WM") if t in name), None)
                tissue = {"brainstem": "WM", "pallidum": "WM", "spinal cord": "WM"}.get(name, tissue)
                if tissue:
                    means[index] = _ORDERS[modality][tissue] + self.R.normal(0, 0.06)
        means[CLASSES.index("background")] = 0
        means[CLASSES.index("compact bone")] *= 0.2
        return means


def _middle(volume: Tensor, side: int) -> Tensor:
    """The cube of ``side`` voxels in the middle."""
    start = (volume.shape[-1] - side) // 2
    return volume[(slice(start, start + side),) * 3]


def _pick(volume: Tensor, index: Tensor) -> Tensor:
    """The voxels of a cube at ``index`` along each axis."""
    return volume[index][:, index][:, :, index]
