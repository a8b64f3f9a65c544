"""Lists of training volumes."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import WeightedRandomSampler

from .errors import InputError
from .networks.weights import read_weights

KINDS = ("sharp", "label_map")


def read_sections(path: str, section: str | None) -> dict:
    """All sections of a MONAI datalist, of which ``section`` must be there; None: any.

    (MONAI's own reader would take any text that is also a folder's name there for a path.)

    Raises:
        InputError: no such file, not JSON, or no such section.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such datalist")
    try:
        sections = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if isinstance(sections, dict) and section is None and any(isinstance(items, list) for items in sections.values()):
        return sections
    section = section or "testing"
    if not isinstance(sections, dict) or not isinstance(sections.get(section), list):
        raise InputError(f"{path}: no section {section!r}; a datalist is {{{section!r}: [{{'image': file}}, ...]}}")
    return sections


def read_datalist(path: str, section: str, dataset_dir: str) -> list[dict]:
    """Items of a section of a MONAI datalist, or several with commas between; ``image`` is resolved in ``dataset_dir``.

    An item holds ``image`` (file); it may hold ``kind`` (``sharp`` or ``label_map``), ``modality`` and ``weight``.

    Raises:
        InputError: missing list or section, an item without image or of unknown kind.
    """
    items = []
    for name in section.split(","):
        for item in read_sections(path, name)[name]:
            if not isinstance(item, dict) or "image" not in item:
                raise InputError(f"{path}: section {name!r} holds {item!r}; every item needs an 'image'")
            if item.get("kind", "sharp") not in KINDS:
                raise InputError(f"{path}: kind {item['kind']!r} of {item['image']}; allowed: {', '.join(KINDS)}")
            items.append({**item, "image": str(path_inside(dataset_dir, item["image"], path, absolute=True))})
    return items


def read_images(path: str, section: str = "all") -> list[str]:
    """Images of a datalist as MONAI writes it: items are ``{"image": file}``, or files.

    Args:
        path: JSON file.
        section: its name; ``all`` is ``testing`` where there is one, and every section else.

    Raises:
        InputError: not a datalist, no such section, an item without image.
    """
    if section == "all":
        sections = read_sections(path, None)
        lists = {name: items for name, items in sections.items() if isinstance(items, list)}
        chosen = [lists["testing"]] if "testing" in lists else list(lists.values())
    else:
        chosen = [read_sections(path, section)[section]]
    images = []
    for item in (item for items in chosen for item in items):
        image = item.get("image") if isinstance(item, dict) else item
        if isinstance(image, list) and len(image) == 1:
            image = image[0]
        if not isinstance(image, str) or not image:
            raise InputError(f"{path}: holds {str(item)[:80]}; every item needs one 'image', a file")
        images.append(image)
    return images


def normal(path: str | os.PathLike) -> Path:
    """Absolute path without ``..``, worked out from its text alone."""
    return Path(os.path.abspath(path))


def path_inside(root: str | os.PathLike, path: str, name: str, absolute: bool = False) -> Path:
    """The file that a datalist means by ``path``.

    Args:
        root: folder that the list's paths are relative to and may not leave.
        path: as it stands in the list.
        name: the list, for the message.
        absolute: whether an absolute path may lie anywhere.

    Raises:
        InputError: it leads out of the root.
    """
    if absolute and os.path.isabs(path):
        return Path(path)
    file = normal(Path(root) / path)
    if not file.is_relative_to(normal(root)):
        raise InputError(
            f"{name}: {path} leads out of {normal(root)}; set --dataset_dir to a folder that holds all files "
            "(/ allows any)"
        )
    return file if os.path.isabs(path) or os.path.isabs(root) else Path(os.path.normpath(Path(root) / path))


def check_files(items: Iterable[Mapping], keys: Sequence[str] = ("image",)) -> None:
    """See that all files of some items are there, before work of minutes begins.

    Raises:
        InputError: one is not.
    """
    for path in (item[key] for item in items for key in keys):
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; set --dataset_dir to the folder of the data")


def check_weights(*paths: str | None) -> None:
    """See that files of weights can be read; None is no file.

    Raises:
        InputError: a missing or damaged one.
    """
    for path in paths:
        if path is not None:
            read_weights(path)


def preflight(path: str, dataset_dir: str, weights: Sequence[str | None] = (), sections: Sequence[str] = ()) -> None:
    """See that the lists are sound and every file is there, the weights to begin from too, before a training starts.

    Args:
        path: datalist.
        dataset_dir: folder that its paths are relative to.
        weights: files of weights, or None.
        sections: of the list, beside those for training and validation.

    Raises:
        SystemExit: they are not; the message is one line.
    """
    try:
        validation = read_datalist(path, "validation", dataset_dir)
        check_files([*read_datalist(path, ",".join(("training", *sections)), dataset_dir), *validation])
        if any(item.get("kind") == "label_map" for item in validation):
            raise InputError(f"{path}: a label map in 'validation'; only sharp volumes can be validated on")
        check_weights(*weights)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def weighted_sampler(items: Sequence[dict], count: int, label_maps: float | None = None) -> WeightedRandomSampler:
    """Sampler of ``count`` items per epoch, each drawn in proportion to its ``weight`` (1 if it has none).

    Args:
        items: of a datalist.
        count: draws in an epoch.
        label_maps: share of the draws that fall on label maps, whatever their weights sum to; None leaves it to these.
    """
    weights = torch.tensor([float(item.get("weight", 1)) for item in items])
    maps = torch.tensor([item.get("kind") == "label_map" for item in items])
    if label_maps is not None and maps.any() and not maps.all():
        share = torch.where(maps, label_maps / weights[maps].sum(), (1 - label_maps) / weights[~maps].sum())
        weights = weights * share
    return WeightedRandomSampler(weights.tolist(), count)
