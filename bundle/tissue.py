"""The tissue map of the main job, as a MONAI transform."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .geometry import resample
from .inferer import AnatomyInferer
from .memory import with_smaller_tiles
from .networks.anatomy import AnatomyExtractor
from .networks.weights import load

TILE, LEAST_TILE = 128, 64  # side of a tile in voxels: at first, and at the least where memory runs out


class ExtractTissued(MapTransform):
    """Write under ``tissue`` the most probable tissue of every voxel, (1, D, H, W) uint8, index into ``TISSUES``.

    Args:
        keys: (1, D, H, W) MetaTensor, what the super-resolver was given.
        weights: of the anatomy extractor; read when the first volume comes.
        enabled: False leaves items as they are.
        check: whether the weights must be the shipped ones, see :func:`bundle.networks.weights.read_weights`.
    """

    def __init__(self, keys: KeysCollection, weights: str, enabled: bool = True, check: bool = True) -> None:
        super().__init__(keys)
        self.weights, self.enabled, self.check = weights, enabled, check
        self.network: AnatomyExtractor | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        if not self.enabled:
            return item
        for key in self.key_iterator(item):
            image = item[key].as_tensor()[None]
            if self.network is None:
                self.network = load(AnatomyExtractor(), self.weights, self.check)
                self.network.to(image.device, memory_format=torch.channels_last_3d)
            condition = torch.as_tensor(item["condition"])[None]
            tissue, _ = with_smaller_tiles(partial(self._label, image, condition), TILE, image.shape[2:], LEAST_TILE)
            item["tissue"] = MetaTensor(tissue[0], affine=item[key].affine)
        return item

    def _label(self, image: torch.Tensor, condition: torch.Tensor, tile: int) -> torch.Tensor:
        return AnatomyInferer(tile)(image, self.network, condition)


def vote(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A label map on another grid over the same field of view; between the old voxels the nearest ones vote.

    Args:
        labels: (1, D, H, W) uint8, on a grid as fine or finer.
        shape: of the result.

    Returns:
        (1, *shape) uint8: the label with the largest share by linear interpolation, the lower one of two as large.
    """
    best = torch.zeros((1, *shape), dtype=torch.uint8, device=labels.device)
    most = torch.zeros((1, *shape), device=labels.device)
    for label in labels.unique():
        share = resample((labels == label).float(), shape, order=1)
        best, most = torch.where(share > most, label, best), torch.maximum(share, most)
    return best
