"""MONAI transform that makes sharp volumes, and pairs of two fields, of label maps; over :mod:`bundle.simulation`."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from .geometry import apply_axes, gaussian_matrix
from .simulation.protocol import MODALITIES, draw
from .simulation.rendering import add_lesions, brain_mask, deform, draw_shape, render, smooth_noise
from .simulation.tissues import CLASSES

_ORDERS = {"T1w": {"CSF": 0.2, "GM": 0.6, "WM": 0.95}, "T2w": {"CSF": 0.95, "GM": 0.55, "WM": 0.35}}
_WHITE = {"T1w": (0.4, 1.0), "T2w": (0.2, 0.65)}  # white matter after normalisation, with and without scalp
_HEAD = 200.0  # mm, over which the control points of a deformation are spread


class RandRenderd(Randomizable, MapTransform):
    """Turn a crop of fine tissue classes into sharp volumes; leave images as they are.

    The voxel size is drawn between that of the fine map and twice as much, the head is warped a little. Then either

    - a pair: the crop at 7 T replaces the classes, what 1.5 to 3 T see of it comes under ``low``, by the physics of
      :mod:`bundle.simulation`, or
    - one volume of random contrast, half the time in the order of a T1-weighted or T2-weighted scan.

    Some crops are then cut down to the brain, as skull-stripping tools leave them: with a hard edge.

    Args:
        keys: (1, n, n, n) uint8, ``n`` twice ``size``, voxels of half a millimetre.
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
        pair = self.R.rand() < self.pairs
        item["modality"] = (*MODALITIES, "other", "other")[self.R.randint(2 if pair else 4)]
        for key in self.key_iterator(item):
            classes = self._warp(item[key][0])
            views = self._pair(classes, item["modality"]) if pair else self._contrast(classes, item["modality"])
            if self.R.rand() < self.stripped:
                grow, shrink = int(self.R.randint(4, 10)), int(self.R.randint(2, 8))
                views = views * brain_mask(classes, grow, shrink)
            matrix = gaussian_matrix(classes.shape[-1], self.size, classes.shape[-1] / self.size)
            views = apply_axes(views, [matrix] * 3).clamp_min(0)
            item[key] = views[-1:]
            if pair:
                item["low"] = views[:1]
        return item

    def _warp(self, classes: Tensor) -> Tensor:
        """A random voxel size: the middle of the crop; a random shape: an affine, and less of a smooth deformation."""
        side = int(self.R.randint(self.size, classes.shape[-1] + 1))
        reach = min(classes.shape[-1], side + side // 5)  # what the deformation may pull in
        shape = draw_shape(self.R)
        shape["displacement"] = (np.array(shape["displacement"]) * reach * self.spacing / _HEAD).tolist()
        return _middle(deform(_middle(classes, reach), shape, [self.spacing] * 3), side)

    def _pair(self, classes: Tensor, modality: str) -> Tensor:
        """Low and high field, (2, n, n, n), white matter where normalisation may put it."""
        parameters = draw(self.R, modality, float(self.R.uniform(1.5, 3.0)), 7.0)
        spacing = [self.spacing] * 3
        classes, _ = add_lesions(classes, self.R, spacing)
        return float(self.R.uniform(*_WHITE[modality])) * torch.stack(render(classes, parameters, spacing))

    def _contrast(self, classes: Tensor, modality: str) -> Tensor:
        """One volume, (1, n, n, n), of a random mean per class and texture within tissue."""
        volume = torch.from_numpy(self._means(modality).astype(np.float32))[classes.int()]
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        texture = smooth_noise(classes.shape, self.R.uniform(2, 8), generator)
        return torch.where(classes > 0, volume + float(self.R.uniform(0, 0.06)) * texture, 0)[None]

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
