"""Lists of training volumes."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import WeightedRandomSampler

from .errors import InputError

KINDS = ("sharp", "label_map")


def read_datalist(path: str, section: str, dataset_dir: str) -> list[dict]:
    """Items of one section of a MONAI datalist, with ``image`` resolved against ``dataset_dir``.

    (MONAI's own reader would take any text that is also a folder's name there for a path.)
    An item holds ``image`` (file); it may hold ``kind`` (``sharp`` or ``label_map``), ``modality`` and ``weight``.

    Raises:
        InputError: missing list or section, unknown kind.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such datalist")
    sections = json.loads(Path(path).read_text())
    if section not in sections:
        raise InputError(f"{path}: no section {section!r}; it has {', '.join(sections)}")
    items = [{**item, "image": str(Path(dataset_dir) / item["image"])} for item in sections[section]]
    for item in items:
        if item.get("kind", "sharp") not in KINDS:
            raise InputError(f"{path}: kind {item['kind']!r} of {item['image']}; allowed: {', '.join(KINDS)}")
    return items


def check_files(items: Sequence[dict]) -> None:
    """See that every item's file is there, before a training starts.

    Raises:
        SystemExit: one is not; the message is one line.
    """
    for item in items:
        if not Path(item["image"]).is_file():
            raise SystemExit(f"error: {item['image']}: no such file; set --dataset_dir to the folder of the data")


def weighted_sampler(items: Sequence[dict], count: int) -> WeightedRandomSampler:
    """Sampler of ``count`` items per epoch, each drawn in proportion to its ``weight`` (1 if it has none)."""
    return WeightedRandomSampler([float(item.get("weight", 1)) for item in items], count)
