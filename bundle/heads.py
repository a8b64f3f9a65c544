"""Whole simulated heads, imaged once by a low and a high field and kept in files, out of which training cuts crops."""

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from .cropping import air_level
from .errors import InputError
from .geometry import CanonicalAxes, Grid, resample
from .intensity import fit_intensity
from .neighbourhood import pad_view
from .networks.context import CELL, REACH, VIEW, coarse_view
from .networks.super_resolver import encode_condition
from .simulate import nearest, read_maps
from .simulation.acquisition import Acquisition, bias_field, ghost, rician
from .simulation.protocol import MODALITIES, acquisition, draw
from .simulation.rendering import add_lesions, brain_mask, deform, draw_shape, prepare_map, render
from .simulation.tissues import GROUP_OF_CLASS

ZOOM = (0.75, 1.15)  # voxel of the target over that of the map
STRIPPED = 0.2  # share of heads without skull
_FLOOR, _DARKEST = 0.9, 0.02  # of stripped heads some are darkened by at most that share of that quantile
_AIR, _CUT, _COARSEST = 24, 8, 44  # voxels that a view's field may grow or shrink by on a side; its least size
_PART = CELL // 2  # corners of crops are multiples of this


def make_head(path: str, modality: str, random: np.random.RandomState, stripped: float = STRIPPED) -> dict[str, Tensor]:
    """One person of a label map, with a shape, tissue and scanner drawn at random, in canonical axes.

    What a network is given is made as inference makes it: the low field's image is normalised and resampled onto the
    target grid as a whole. A share of the heads has no skull: half of those lose it before they are scanned, as a
    degraded brain has, half after it, as a tool does it, and half have their darkest tissue brought towards zero.

    Returns:
        ``image``, ``label`` (1, D, H, W) float16, the low field's image and the high field's in its units, ``tissue``
        (1, D, H, W) uint8, ``condition`` (6,), ``level`` (), how bright white matter is at the high field.
    """
    _, classes, affine = next(read_maps(path))
    spacing = Grid(tuple(classes.shape), affine).spacing
    steps = [s / 2 for s in spacing]
    parameters = draw(random, modality, float(random.uniform(1.5, 3.0)), 7.0)
    fine = deform(prepare_map(classes, spacing), draw_shape(random), steps)
    fine, _ = add_lesions(fine, random, steps)
    zoom, factors = float(random.uniform(*ZOOM)), draw_factors(random)
    shape = [round(n / zoom) for n in classes.shape]
    views, tissue = torch.stack(render(fine, parameters, steps)), at(GROUP_OF_CLASS[fine.int()], shape)
    mask, late, floor = None, False, 0.0
    if random.rand() < stripped:
        mask = brain_mask(fine, int(random.randint(4, 10)), int(random.randint(2, 8)))
        late, floor = random.rand() < 0.5, float(random.uniform(0, _FLOOR) * (random.rand() < 0.5))
        views, tissue = views if late else views * mask, tissue * at(mask, shape).byte()
    views = Acquisition()(views, shape) * bias_field(shape, torch.tensor(parameters["bias"]).float())
    coarse = [max(8, round(n / f)) for n, f in zip(shape, factors, strict=True)]
    low, high = _scan(views[0], parameters, coarse), views[1]
    if mask is not None:
        low, high = (_strip(v, at(mask, v.shape), late, floor) for v in (low, high))
    intensity, axes = fit_intensity(low, path), CanonicalAxes.of(affine)
    true_factors = [n / m for n, m in zip(shape, low.shape, strict=True)]
    return {
        "image": axes.enter(resample(intensity.normalise(low), shape))[None].half(),
        "label": axes.enter(intensity.normalise(high))[None].half(),
        "tissue": axes.enter(tissue)[None].contiguous(),
        "condition": encode_condition("7T", modality, [true_factors[i] for i in axes.order]),
        "level": torch.tensor((1 - intensity.offset) / intensity.scale),
    }


def at(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """The voxels of a volume that are nearest to those of another grid over the same space."""
    for axis, n in enumerate(shape):
        volume = volume.index_select(axis, nearest(volume.shape[axis], n))
    return volume


def _strip(volume: Tensor, mask: Tensor, late: bool, floor: float) -> Tensor:
    """A scan without skull: what is outside the mask is removed if it is still there, the darkest tissue darkened."""
    dark = floor * float(np.quantile(volume[mask > 0].numpy(), _DARKEST))
    return (volume * mask if late else volume).sub(dark).clamp_min(0)


def _scan(view: Tensor, parameters: dict, shape: Sequence[int]) -> Tensor:
    """What the low field's scanner makes of its view, on ``shape`` voxels."""
    low = acquisition(parameters)(view, shape)
    if parameters["ghost"] is not None:
        low = ghost(low, **parameters["ghost"])
    return rician(low, parameters["noise"], torch.Generator().manual_seed(parameters["seed"] + 1))


def draw_factors(random: np.random.RandomState) -> list[float]:
    """Target voxels along the side of one of the input: 2 for four in ten, other cubes, thick slices, or 1."""
    kind = random.choice(4, p=(0.4, 0.2, 0.3, 0.1))
    factors = [(2.0, float(random.uniform(1.2, 3.0)), 1.0, 1.0)[kind]] * 3
    if kind == 2:
        factors[random.randint(3)] = float(np.exp(random.uniform(np.log(1.5), np.log(6))))
    return factors


class HeadCrops(Dataset):
    """Random crops of heads, as many as the sampler draws; those of other examples stay what their data set makes them.

    A crop has the surround that inference gives to a tile, and a coarse view of the head as another field of view would
    show it (:func:`draw_view`): few heads seen again and again would else be known by their views. The view of the
    head's own field stands under ``own_context``; examples that are no crops of heads have theirs in both places.
    Missing files are made first: ``count`` heads, in turn of each label map of the items and each modality.

    Args:
        source: data set whose items that are label maps are replaced by crops of heads, a share of them.
        items: of a datalist, one for each of the source.
        folder: of the heads, one file each.
        count: heads.
        size: side of a crop.
        share: of the draws of label maps that become crops of heads.
        stripped: share of the heads without skull, of those that are made now.
        seed: of the heads.

    Raises:
        InputError: no label maps, a head that was made of another one, or one that is smaller than a crop.
    """

    def __init__(
        self,
        source: Dataset,
        items: Sequence[Mapping],
        folder: str,
        count: int,
        size: int,
        share: float = 1.0,
        stripped: float = STRIPPED,
        seed: int = 0,
    ) -> None:
        self.source, self.items, self.size, self.share = source, items, size, share
        maps = [item["image"] for item in items if item.get("kind") == "label_map"]
        if not maps:
            raise InputError("heads are made of label maps, and the training items hold none (kind: label_map)")
        paths = [Path(folder) / f"head_{k:03d}.pt" for k in range(count)]
        missing = [k for k, path in enumerate(paths) if not path.exists()]
        for k in tqdm(missing, "heads", disable=None):
            _write(paths[k], maps[k // 2 % len(maps)], MODALITIES[k % 2], [seed, k], stripped)
        self.heads = [_ready(_read(path, {Path(m).name for m in maps}, size)) for path in paths]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self.items[index].get("kind") != "label_map" or float(torch.rand(())) >= self.share:
            example = self.source[index]
            return example | {"own_context": example["context"]}
        return cut_crop(self.heads[int(torch.randint(len(self.heads), ()))], self.size)


def _write(path: Path, source: str, modality: str, seed: Sequence[int], stripped: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = zlib.crc32(Path(source).name.encode())
    random = np.random.RandomState([*seed, name])
    head = make_head(source, modality, random, stripped) | {"source": Path(source).name}
    temporary = path.with_suffix(f".tmp{os.getpid()}")
    torch.save(head, temporary)
    os.replace(temporary, path)


def _read(path: Path, sources: set[str], size: int) -> dict[str, Tensor]:
    """A head of one of the label maps of this training, and of no one else: another list may have another split."""
    head = torch.load(path, weights_only=True)
    source = head.pop("source")
    if source not in sources:
        raise InputError(f"{path}: made of {source}, which is not trained on here; choose another folder for --heads")
    if min(head["image"].shape[1:]) < size:
        raise InputError(f"{path}: {tuple(head['image'].shape[1:])} voxels, smaller than crops of {size}")
    return head


def _ready(head: dict[str, Tensor]) -> dict[str, Tensor]:
    """A head, sides multiples of :data:`CELL`, its own shape and view, and means over half cells with air around."""
    shape = head["image"].shape[1:]
    padding = [v for n in reversed(shape) for v in (0, -n % CELL)]
    view = pad_view(coarse_view(head["image"][None].float())[0])
    head = head | {k: F.pad(head[k][None], padding, mode="replicate")[0] for k in ("image", "label")}
    head["tissue"] = F.pad(head["tissue"], padding, value=0)
    parts = F.avg_pool3d(head["image"].float(), _PART)
    return head | {"shape": shape, "view": view, "parts": F.pad(parts, [2 * REACH] * 6)}


def draw_view(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Coarse view of a head in a field of view drawn at random, (1, VIEW, VIEW, VIEW).

    Half of its sides have more air, a fifth cut a little off, and its voxels are up to half as large again.

    Args:
        image: (1, D, H, W), of which the first ``shape`` voxels are the head's own.
    """
    own = image[None, ..., : shape[0], : shape[1], : shape[2]].float()
    grow = torch.randint(0, _AIR + 1, (6,)) * (torch.rand(6) < 0.5)
    cut = torch.randint(0, _CUT + 1, (6,)) * (torch.rand(6) < 0.2)
    frame = F.pad(own, (grow - cut).tolist(), value=air_level(own))
    return pad_view(coarse_view(frame, int(torch.randint(_COARSEST, VIEW + 1, ())))[0])


def cut_crop(head: Mapping[str, Tensor], size: int, tries: int = 10) -> dict[str, Tensor]:
    """A random crop with something in its middle, and left and right exchanged half the time."""
    image = head["image"]
    for _ in range(tries):
        corner = [_PART * int(torch.randint((n - size) // _PART + 1, ())) for n in image.shape[1:]]
        if float(image[(0, *(c + size // 2 for c in corner))]) > 0.1:
            break
    box = (..., *(slice(c, c + size) for c in corner))
    around = (..., *(slice(c // _PART, c // _PART + 2 * (size // CELL + 2 * REACH)) for c in corner))
    crop = {key: head[key][box] for key in ("image", "label", "tissue")}
    crop |= {"context": draw_view(image, head["shape"]), "own_context": head["view"]}
    crop |= {"cells": F.avg_pool3d(head["parts"][around], 2)}
    if float(torch.rand(())) < 0.5:
        crop = {key: volume.flip(1) for key, volume in crop.items()}
    crop = {key: v.contiguous() if v.dtype == torch.uint8 else v.float().contiguous() for key, v in crop.items()}
    return crop | {"condition": head["condition"], "level": head["level"]}
