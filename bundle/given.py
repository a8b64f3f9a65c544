"""Pairs of real scans to be evaluated: files of a low and a high volume, and perhaps tissue and somebody's result."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from .data import read_sections
from .errors import InputError
from .geometry import CanonicalAxes, Grid, target_grid
from .intensity import fit_intensity
from .io import read_volume
from .modality import modality_by_histogram, modality_by_name
from .networks.super_resolver import CONTRASTS, MODALITIES
from .simulation.tissues import GROUP_OF_CLASS, to_classes

FILES = ("low", "high", "tissue", "prediction")
_AGREE = 0.1  # voxels: how far grids may lie apart that are to be the same


def read_given(path: str, section: str, dataset_dir: str) -> list[dict]:
    """Pairs of a section of a datalist: ``low``, ``high``, and if wanted ``tissue`` and ``prediction``, made absolute.

    ``tissue`` is a label map with FreeSurfer or SynthSeg numbers on the grid of ``high``, ``prediction`` a result there
    that is judged beside the methods. An item may also hold ``modality``, and ``contrast``: ``input`` (both scans have
    the same; the default) or ``7T``.

    Raises:
        InputError: missing list, section, partner or file, an unknown contrast or modality.
    """
    items = []
    for item in read_sections(path, section)[section]:
        if not isinstance(item, dict) or not ("low" in item and "high" in item):
            raise InputError(f"{path}: section {section!r} holds {item!r}; a pair needs both 'low' and 'high'")
        files = {key: str(Path(dataset_dir) / item[key]) for key in FILES if item.get(key)}
        for key, file in files.items():
            if not Path(file).is_file():
                raise InputError(f"{file}: no such file, the {key!r} of a pair in {path}; set --dataset_dir")
        contrast, modality = item.get("contrast", "input"), item.get("modality", "auto")
        if contrast not in CONTRASTS or modality not in (*MODALITIES, "auto"):
            allowed = f"{', '.join(CONTRASTS)} and {', '.join(MODALITIES)}, auto"
            raise InputError(
                f"{path}: contrast {contrast!r}, modality {modality!r} of {item['high']}; allowed: {allowed}"
            )
        items.append({**item, **files, "contrast": contrast, "modality": modality})
    return items


def read_pair(item: Mapping) -> dict:
    """Volumes of a pair: normalised ``low`` (1, 1, d, h, w), ``reference`` (D, H, W), and what else the item names.

    Also ``factors``, ``axes``, ``spacing`` and ``modality``. All volumes are on the scale that normalises the low one.

    Raises:
        InputError: the low scan covers another field of view than the high one, or is nowhere coarser; tissue or
            prediction lie on another grid than the high scan; the tissue map is empty or holds unknown numbers.
    """
    low, high = read_volume(item["low"]), read_volume(item["high"])
    factors = _factors(low, high, item)
    intensity = fit_intensity(low.as_tensor(), item["low"])
    found = {"low": intensity.normalise(low.as_tensor())[None], "reference": intensity.normalise(high.as_tensor()[0])}
    found |= {"factors": factors, "spacing": tuple(high.pixdim.tolist())}
    found["axes"] = CanonicalAxes.of(high.affine.numpy())
    for key in ("tissue", "prediction"):
        if key in item:
            volume = read_volume(item[key])
            _same_grid(volume, high, item[key], item["high"])
            plain = volume.as_tensor()[0]
            found[key] = _tissue(plain, item[key]) if key == "tissue" else intensity.normalise(plain)
    modality = item.get("modality", "auto")
    if modality == "auto":
        modality = modality_by_name(Path(item["low"])) or modality_by_histogram(
            low.as_tensor(), tuple(low.pixdim.tolist())
        )
    return {**found, "modality": modality}


def _factors(low: MetaTensor, high: MetaTensor, item: Mapping) -> tuple[float, float, float]:
    """High over low voxels per axis, if both cover the same box in the world."""
    factors = tuple(n / m for n, m in zip(high.shape[1:], low.shape[1:], strict=True))
    names = f"{item['low']} and {item['high']}"
    spacing = [float(s) for s in high.pixdim]
    wanted = target_grid(Grid(tuple(low.shape[1:]), low.affine.numpy()), spacing)
    if wanted.shape != tuple(high.shape[1:]) or not _close(wanted.affine, high.affine.numpy(), high.shape[1:]):
        sizes = " and ".join(f"{_text(v.shape[1:])} voxels of {_text(v.pixdim.tolist())} mm" for v in (low, high))
        raise InputError(f"{names}: {sizes} do not cover the same field of view; register and crop them to it first")
    if max(factors) <= 1:
        raise InputError(f"{names}: the low scan has {_text(low.shape[1:])} voxels, nowhere fewer than the high one")
    return factors


def _same_grid(volume: MetaTensor, high: MetaTensor, name: str, partner: str) -> None:
    own, wanted = ((v.shape[1:], v.affine.numpy()) for v in (volume, high))
    if own[0] != wanted[0]:
        raise InputError(f"{name}: {_text(own[0])} voxels, but {partner} has {_text(wanted[0])}; resample it first")
    if not _close(own[1], wanted[1], wanted[0]):
        sizes = " and ".join(_text(v.pixdim.tolist()) for v in (volume, high))
        raise InputError(f"{name}: lies elsewhere than {partner} (voxels of {sizes} mm); resample it first")


def _close(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the corners of two grids of one shape lie within :data:`_AGREE` voxels of each other."""
    corners = np.array([[*(i * (n - 1) for i, n in zip(c, shape, strict=True)), 1] for c in np.ndindex(2, 2, 2)]).T
    voxel = np.linalg.norm(np.asarray(second)[:3, :3], axis=0).min()
    distance = np.linalg.norm(((np.asarray(first) - np.asarray(second)) @ corners)[:3], axis=0)
    return bool(distance.max() <= _AGREE * voxel)


def _tissue(volume: Tensor, name: str) -> Tensor:
    """Tissue groups of a label map with FreeSurfer or SynthSeg numbers.

    Raises:
        InputError: other numbers, or nothing but background.
    """
    if not volume.any():
        raise InputError(f"{name}: the tissue map is empty; leave it out or repair it")
    return GROUP_OF_CLASS[to_classes(volume, name).int()]


def _text(values: object) -> str:
    return " x ".join(f"{float(v):.4g}" for v in values)
