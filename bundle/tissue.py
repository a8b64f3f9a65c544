"""Tissue of every voxel: the inferer of the anatomy extractor, and the transform of the main job."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional as F

from .compute import autocast
from .cropping import framed
from .geometry import apply_axes, resample
from .memory import with_smaller_tiles
from .networks.anatomy import TISSUES, AnatomyExtractor
from .networks.context import cut_surround, surround
from .networks.weights import load
from .simulation.acquisition import acquisition_matrix
from .tiles import even_sides, tile_slices

TILE, LEAST_TILE = 216, 64  # cube root of a tile's voxels: at first, and at the least where memory runs out
VOXEL, KNOWN = 1.0, (0.7, 1.3)  # mm: what the extractor works on, where voxels are not of a size that it was trained on


class AnatomyInferer(Inferer):
    """Most probable tissue of every voxel, tile by tile.

    Anatomy has a size: volumes of finer, coarser or longer voxels than the extractor was trained on are labelled on a
    grid of 1 mm, and its probabilities interpolated. The view of the whole head is brought to one frame
    (:func:`bundle.cropping.framed`), and the contrast told is always ``7T``: nearly all that the extractor learnt its
    labels from came with that. Probabilities are the mean of two views, the tile and its mirror image moved by one
    voxel: right and left look the same to an extractor, and where pairs of voxels begin is no matter of anatomy (cycle
    spinning: Coifman and Donoho, Wavelets and Statistics, 1995).

    Args:
        tile: cube root of the largest number of voxels in a tile; tiles are as few and as equal as that allows. Where
            memory runs out they become smaller.
        overlap: voxels that neighbouring tiles share; each decides up to the middle of it.
        amp: bf16 where it is fast.
    """

    def __init__(self, tile: int = TILE, overlap: int = 32, amp: bool = True) -> None:
        super().__init__()
        self.tile, self.overlap, self.amp = tile, overlap, amp

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor,
        network: torch.nn.Module,
        condition: Tensor,
        context: Tensor | None = None,
        cells: Tensor | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Tensor:
        """Label ``inputs``.

        Args:
            inputs: (B, 1, D, H, W), resampled onto the target grid and normalised.
            network: a :class:`bundle.networks.anatomy.AnatomyExtractor`.
            condition: (B, 6).
            context: coarse view of the head that ``inputs`` is a part of; None where it is the whole.
            cells: surround of that part; None where it is the whole.
            spacing: mm; None for that of a MetaTensor that is a whole head, else 1.

        Returns:
            (B, 1, D, H, W) uint8, index into ``TISSUES``.
        """
        image, whole = inputs, context is None
        if isinstance(inputs, MetaTensor):
            image, voxel = inputs.as_tensor(), inputs.affine.reshape(-1, 4, 4)[0, :3, :3].norm(dim=0).tolist()
            spacing = voxel if spacing is None and whole else spacing
        shape = image.shape[2:]
        grid = working_shape(shape, spacing or (1.0, 1.0, 1.0))
        if grid != tuple(shape):
            lines = [acquisition_matrix(n, m, "gaussian", 0.7).to(image) for n, m in zip(shape, grid, strict=True)]
            image = apply_axes(image, lines)
        told = torch.as_tensor(condition).to(image).clone()
        told[:, 0] = 1.0
        view = framed(image) if context is None else context
        label = partial(self._label, image, network, told, view, cells, shape)
        pred, _ = with_smaller_tiles(label, self.tile, grid, LEAST_TILE)
        return MetaTensor(pred, meta=inputs.meta) if isinstance(inputs, MetaTensor) else pred

    def _label(
        self,
        image: Tensor,
        network: torch.nn.Module,
        condition: Tensor,
        context: Tensor,
        cells: Tensor | None,
        shape: Sequence[int],
        tile: int,
    ) -> Tensor:
        """Labels (B, 1, *shape) of an image on the grid that the extractor works on."""
        parts = self._parts(image, network, condition, context, cells, tile)
        if image.shape[2:] == tuple(shape):
            pred = torch.zeros(image.shape, dtype=torch.uint8, device=image.device)
            for own, tissue in parts:
                pred[(..., *own)] = tissue.argmax(1, keepdim=True).byte()
            return pred
        shares = image.new_zeros((len(image), len(TISSUES), *image.shape[2:]))
        for own, tissue in parts:
            shares[(..., *own)] = tissue
        return largest(enumerate(shares.unbind(1)), shape)[:, None]

    def _parts(
        self,
        image: Tensor,
        network: torch.nn.Module,
        condition: Tensor,
        context: Tensor,
        cells: Tensor | None,
        side: int,
    ) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Where each tile decides, and its probabilities there."""
        shape, m = image.shape[2:], network.multiple
        volume = F.pad(image, [v for n in reversed(shape) for v in (0, -n % m)], mode="replicate")
        cells = surround(volume) if cells is None else torch.as_tensor(cells).to(volume)
        with autocast(image.device, self.amp):
            vector = network.context(torch.as_tensor(context).to(image))
            sides = even_sides(volume.shape[2:], side**3, self.overlap)
            for tile in tile_slices(tuple(volume.shape[2:]), sides, self.overlap):
                part = volume[(..., *tile)], cut_surround(cells, tile)
                inner = [s.start + (self.overlap // 2 if s.start else 0) for s in tile]
                own = tuple(slice(i, min(s.stop, n)) for i, s, n in zip(inner, tile, shape, strict=True))
                new = tuple(slice(o.start - s.start, o.stop - s.start) for o, s in zip(own, tile, strict=True))
                yield own, two_views(network, *part, vector, condition)[(..., *new)]


def two_views(network: torch.nn.Module, image: Tensor, cells: Tensor, context: Tensor, condition: Tensor) -> Tensor:
    """Probabilities (B, K, D, H, W) of a tile and, but for its last planes, of its mirror image moved by one voxel.

    Arguments are those of :meth:`bundle.networks.anatomy.AnatomyExtractor.forward`.
    """
    inner = (..., slice(-1), slice(-1), slice(-1))
    moved = F.pad(image, (1, 0) * 3, mode="replicate")[inner]
    tissue = network(image, cells, context, condition).tissue
    other = network(moved.flip(2), cells.flip(2), context, condition).tissue.flip(2)
    tissue[inner].add_(other[..., 1:, 1:, 1:]).div_(2)
    return tissue


def working_shape(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels along each side of the grid that the extractor works on, for a volume of a spacing in mm."""
    if KNOWN[0] <= min(spacing) and max(spacing) <= KNOWN[1]:
        return tuple(shape)
    return tuple(max(1, round(n * s / VOXEL)) for n, s in zip(shape, spacing, strict=True))


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
            tissue = AnatomyInferer()(image, self.network, condition, spacing=item[key].pixdim.tolist())
            item["tissue"] = MetaTensor(tissue[0], affine=item[key].affine)
        return item


def vote(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """A label map on another grid over the same field of view; between the old voxels the nearest ones vote.

    Args:
        labels: (1, D, H, W) uint8.
        shape: of the result.

    Returns:
        (1, *shape) uint8: see :func:`largest`.
    """
    return largest(((int(label), (labels == label).float()) for label in labels.unique()), shape)


def largest(shares: Iterable[tuple[int, Tensor]], shape: Sequence[int]) -> Tensor:
    """The label with the largest share after linear interpolation to ``shape``, the lower one of two as large.

    Args:
        shares: labels and their shares (B, D, H, W), lower labels first.
        shape: of the result.

    Returns:
        (B, *shape) uint8.
    """
    best, most = torch.zeros(0), torch.zeros(0)
    for label, share in shares:
        fine = resample(share, shape, order=1)
        if not most.numel():
            best, most = torch.zeros_like(fine, dtype=torch.uint8), torch.zeros_like(fine)
        best[fine > most] = label
        most = torch.maximum(fine, most)
    return best
