"""What memory a cohort will take, from the headers alone, told before its first volume is read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch

from .compute import free_memory
from .errors import one_line
from .geometry import Grid, check_grid, default_spacing, target_grid
from .inferer import SuperResolutionInferer
from .io import split_name

HELD, SAMPLING = (
    60,
    36,
)  # bytes per voxel of the result at the peak, besides the network's activations, and more where samples are
# drawn: their running sums (measured, docs/cohorts.md)
SMALLEST = 256 * 2**20  # bytes for the activations of the smallest tiles and for libraries


class Forecast(NamedTuple):
    """Of one volume: its result's ``shape``, the side of the tiles (None: whole) and bytes at the peak."""

    path: Path
    shape: tuple[int, ...]
    tile: int | None
    peak: int
    fits: bool


def needed(shape: Sequence[int]) -> int:
    """Bytes without which a result of this shape cannot be made in tiles of any size."""
    return math.prod(shape) * HELD + SMALLEST


def forecast(
    items: Sequence[Mapping[str, Any]],
    spacing: Sequence[float] | None,
    inferer: SuperResolutionInferer,
    network: torch.nn.Module,
    device: torch.device,
) -> Forecast | None:
    """Print a line about the largest result, and one about those that are too large; None where no header tells.

    Args:
        items: with a path under ``image``.
        spacing: of the target in mm along the axes of the file, None for the default.
        inferer: that decides about tiles.
        network: that will be run.
        device: where it will be run.
    """
    free = free_memory("cpu")
    known = [_of(grid, spacing, inferer, network, device, free) for grid in _grids(item["image"] for item in items)]
    if not known:
        return None
    largest = max(known, key=lambda one: one.peak)
    size = " x ".join(map(str, largest.shape))
    how = "in one piece" if largest.tile is None else f"in tiles of {largest.tile}"
    name, peak = one_line(largest.path.name), f"about {largest.peak / 1e9:.1f} GB {how}"
    print(f"memory: {name} becomes {size}, {peak}; {free / 1e9:.1f} GB free")
    large = [one for one in known if not one.fits]
    if large:
        names = ", ".join(one_line(one.path.name) for one in large[:5]) + (", ..." if len(large) > 5 else "")
        print(f"memory: {len(large)} of {len(items)} volumes are too large for it and will be refused: {names}")
    return largest


def _of(
    source: tuple[Path, Grid],
    spacing: Sequence[float] | None,
    inferer: SuperResolutionInferer,
    network: torch.nn.Module,
    device: torch.device,
    free: int,
) -> Forecast:
    path, grid = source
    shape = target_grid(grid, spacing or default_spacing(grid.spacing)).shape
    padded = tuple(n + -n % network.multiple for n in shape)
    tile = inferer.tiles(padded, device, network.bytes_per_voxel)
    active = math.prod(padded if tile is None else [min(n, tile) for n in padded]) * network.bytes_per_voxel
    sums = math.prod(shape) * (SAMPLING if inferer.temperature > 0 else 0)
    held = math.prod(shape) * HELD + sums
    fits = needed(shape) + sums <= free
    return Forecast(path, shape, tile, held + (active if device.type == "cpu" else 0), fits)


def _grids(paths: Iterable[Any]) -> Iterable[tuple[Path, Grid]]:
    """Paths and grids of the volumes whose headers can be read; the others are refused when their turn comes."""
    for given in paths:
        try:
            path = Path(given)
            if not path.is_file():
                continue
            grid = _nifti(path) if ".nii" in split_name(path)[1] else _other(path)
            check_grid(grid.shape, grid.affine, str(path))
        except Exception:  # whatever is wrong, reading it will tell in the right words
            continue
        yield path, grid


def _nifti(path: Path) -> Grid:
    header = nib.load(path)
    return Grid(tuple(int(n) for n in header.shape[:3]), np.asarray(header.affine))


def _other(path: Path) -> Grid:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Grid(tuple(reader.GetSize()[:3]), np.diag([*reader.GetSpacing()[:3], 1.0]))
