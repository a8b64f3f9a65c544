"""Simulated pairs on disk: a label map, or the phantom, as a low-field and a high-field scanner would image it."""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .compute import free_memory
from .errors import InputError
from .geometry import Grid, centres, target_grid
from .io import find_volumes, prepare_output, read_volume, split_name, write_json, write_volume
from .options import read_boolean, read_number
from .simulation.acquisition import Acquisition, bias_field, ghost, rician
from .simulation.phantom import brain_phantom
from .simulation.protocol import acquisition, draw
from .simulation.rendering import add_lesions, deform, draw_shape, prepare_map, render
from .simulation.tissues import CLASSES, FIELDS, SOURCES, to_classes

SIDECAR = "_desc-simulation.json"
WHITE = 1000.0  # intensity of white matter in the files
BRAIN = ("cortical GM", "WM")  # what a label map must hold
_BYTES_PER_VOXEL = 24  # of the fine grid, at the peak


def simulate(
    source: str,
    output_dir: str | Path,
    modality: str = "T1w",
    low_field: float = 1.5,
    high_field: float = 7.0,
    factor: Sequence[float] = (2, 2, 2),
    seed: int = 0,
    high_spacing: float | None = None,
    warp: bool = True,
) -> list[Path]:
    """Write ``<stem>_desc-low``, ``-high``, ``-tissue`` and ``-bias`` NIfTIs and ``<stem>_desc-simulation.json``.

    The same arguments give the same bytes. ``pairs.json`` lists all pairs of the folder, ready for a training.

    Args:
        source: label map with FreeSurfer or SynthSeg numbers, a folder of them, or ``phantom``.
        output_dir: folder.
        modality: ``T1w`` or ``T2w``.
        low_field: tesla, 1.5 to 7.
        high_field: tesla, 1.5 to 7, not below the low field.
        factor: spacing of the low image over that of the high one, per axis of the file.
        seed: of everything that is drawn.
        high_spacing: mm of the high image; default: that of the map.
        warp: give every seed a head of its own shape, by a random affine and smooth deformation.

    Returns:
        The sidecars.

    Raises:
        InputError: an unknown label, a map without brain, an argument out of range, too little memory.
    """
    factor, warp = _check_factor(factor), read_boolean("warp", warp)
    seed = read_number(0, 2**31 - 1, whole=True)("seed", seed)
    fields = [
        read_number(FIELDS[0], FIELDS[-1])(f"{k}_field", v) for k, v in (("low", low_field), ("high", high_field))
    ]
    spacing = None if high_spacing is None else read_number(0.3, 4)("high_spacing", high_spacing)
    folder, sidecars = prepare_output(output_dir), []
    for name, classes, affine in read_maps(source, seed):
        random = np.random.RandomState([seed, zlib.crc32(name.encode())])
        parameters = draw(random, modality, *fields)
        images, record = make_pair(classes, affine, parameters, factor, random, spacing, warp)
        for kind, (image, grid) in images.items():
            array = image.numpy() if image.dtype == torch.uint8 else image.numpy().astype(np.float32)
            write_volume(folder / f"{name}_desc-{kind}.nii.gz", array, grid.affine, (1, 1))
        sidecars.append(folder / f"{name}{SIDECAR}")
        head = {"Description": "Simulated pair; not a scan", "GeneratedBy": {"Name": "spcdd", "Version": __version__}}
        classes_by_number = {str(i): c for i, c in enumerate(CLASSES)}
        write_json(sidecars[-1], {**head, **record, "Tissue": classes_by_number, "RelaxationSources": SOURCES})
        print(f"{name}: {', '.join(f'desc-{kind}' for kind in images)}")
    list_pairs(folder)
    return sidecars


def list_pairs(folder: Path) -> None:
    """Write ``pairs.json``, a datalist of every pair in the folder; the last one is kept for validation."""
    items = []
    for sidecar in sorted(folder.glob(f"*{SIDECAR}")):
        name, parameters = sidecar.name.removesuffix(SIDECAR), json.loads(sidecar.read_text())["Parameters"]
        files = {kind: f"{name}_desc-{kind}.nii.gz" for kind in ("low", "high")}
        items.append({**files, "subject": name, "modality": parameters["modality"]})
    write_json(folder / "pairs.json", {"training": items[:-1], "validation": items[-1:]})


def make_pair(
    classes: Tensor,
    affine: np.ndarray,
    parameters: dict[str, Any],
    factor: Sequence[float],
    random: np.random.RandomState,
    spacing: float | None = None,
    warp: bool = True,
) -> tuple[dict[str, tuple[Tensor, Grid]], dict[str, Any]]:
    """One person at two fields.

    Args:
        classes: (D, H, W) uint8.
        affine: of that map.
        parameters: of :func:`bundle.simulation.protocol.draw`.
        factor: low spacing over high spacing.
        random: of shape and lesions.
        spacing: mm of the high image, default that of the map.
        warp: whether to deform.

    Returns:
        ``low``, ``high``, ``tissue`` (on the grid of high) and ``bias`` (on the grid of low), each with its grid, and
        what was drawn, for a sidecar.
    """
    grid = Grid(tuple(classes.shape), affine)
    high_grid = target_grid(grid, [spacing] * 3 if spacing else grid.spacing)
    low_grid = target_grid(high_grid, [s * f for s, f in zip(high_grid.spacing, factor, strict=True)])
    finer = max(2, math.ceil(max(grid.spacing) / min(high_grid.spacing) - 1e-6))
    _check_memory(grid, finer)
    fine, steps = prepare_map(classes, grid.spacing, finer), [s / finer for s in grid.spacing]
    shape = draw_shape(random) if warp else None
    fine = deform(fine, shape, steps) if warp else fine
    fine, lesions = add_lesions(fine, random, steps)
    low, high = render(fine, parameters, steps)
    high = Acquisition()(high, high_grid.shape)
    low, bias = scan(low, parameters, low_grid.shape)
    tissue = fine
    for axis, m in enumerate(high_grid.shape):
        tissue = tissue.index_select(axis, nearest(fine.shape[axis], m))
    images = {"low": (WHITE * low, low_grid), "high": (WHITE * high, high_grid)}
    images |= {"tissue": (tissue, high_grid), "bias": (bias, low_grid)}
    record = {"Parameters": parameters, "Factor": list(factor), "Shape": shape, "Lesions": lesions}
    return images, record


def nearest(n: int, m: int) -> Tensor:
    """Of ``n`` voxels those nearest to the centres of ``m``; of two as near the one nearer to the middle."""
    place = torch.from_numpy(centres(n, m))
    inward = torch.where(place < (n - 1) / 2, 1e-6, -1e-6)
    return (place + inward).round().long()


def scan(volume: Tensor, parameters: dict[str, Any], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The low field's image of a rendered head on ``shape`` voxels, and its bias field."""
    low = acquisition(parameters)(volume, shape)
    bias = bias_field(low.shape, torch.tensor(parameters["bias"], dtype=torch.float32))
    low = low * bias
    if parameters["ghost"] is not None:
        low = ghost(low, **parameters["ghost"])
    generator = torch.Generator().manual_seed(parameters["seed"] + 1)
    return rician(low, parameters["noise"], generator), bias


def read_maps(source: str, seed: int = 0) -> Iterator[tuple[str, Tensor, np.ndarray]]:
    """Name, tissue classes and affine of every label map of ``source``, one after the other; ``seed`` of a phantom.

    Raises:
        InputError: fractions, an unknown label, or no brain.
    """
    if source == "phantom":
        labels = brain_phantom(seed=seed)
        affine = np.eye(4)
        affine[:3, 3] = [-(n - 1) / 2 for n in labels.shape]
        yield f"phantom-{seed}", to_classes(labels, "phantom"), affine
        return
    for path in find_volumes(source):
        volume = read_volume(path)
        labels = volume.as_tensor()[0]
        if not torch.equal(labels, labels.round()):
            raise InputError(f"{path}: holds fractions; a label map of whole numbers is needed")
        classes = to_classes(labels, str(path))
        for name in BRAIN:
            count = int((classes == CLASSES.index(name)).sum())
            if count < 1000:
                raise InputError(f"{path}: {count} voxels of {name}, at least 1000 are needed to be a brain")
        yield split_name(path)[0], classes, volume.affine.numpy()


def _check_factor(given: Sequence[float]) -> tuple[float, ...]:
    try:
        factor = tuple(float(f) for f in given)
    except (TypeError, ValueError):
        factor = ()
    if len(factor) != 3 or not all(1 <= f <= 12 for f in factor):
        raise InputError(f"--factor {given}: allowed are three numbers from 1 to 12, such as [2,2,2]")
    return factor


def _check_memory(grid: Grid, finer: int) -> None:
    need, free = math.prod(grid.shape) * finer**3 * _BYTES_PER_VOXEL, free_memory("cpu")
    if need > free:
        raise InputError(
            f"rendering {'x'.join(map(str, grid.shape))} voxels {finer} times finer needs {need / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; choose a larger --high_spacing"
        )
