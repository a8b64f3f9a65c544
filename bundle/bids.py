"""BIDS: which scans of a data set there are to do, and the data set of derivatives that the results make."""

import json
import os
import re
from pathlib import Path
from typing import Any

from . import __version__
from .errors import InputError
from .io import is_result, split_name, write_json
from .nifti import select_acquisition

BIDS_VERSION = "1.9.0"
SUFFIXES = ("T1w", "T2w")
# folders that are looked into: subjects, their sessions, and anat; a link in circles leads to none of these
_ELSEWHERE = [
    re.compile(r"^/(?!(sub-[^/]+/(ses-[^/]+/)?(anat/)?)?[^/]+$)"),
    re.compile(r"/(?!sub-[^/]+$|ses-[^/]+$|anat$)[^/.]+$"),
]


def find_scans(root: Path, entities: str = "all") -> list[tuple[Path, str, dict[str, Any]]]:
    """T1w and T2w volumes of a BIDS root: file, folder below the root, and what the sidecars say of the acquisition.

    Args:
        root: folder with dataset_description.json.
        entities: ``all``, or entities that a file's name must have, such as ``sub-01_ses-2`` or ``acq-mprage_T1w``.

    Raises:
        InputError: not a BIDS data set, a link that leads in circles, or no such scan.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    try:
        json.loads((root / "dataset_description.json").read_text())
        indexer = BIDSLayoutIndexer(validate=False, ignore=_ELSEWHERE)
        layout = BIDSLayout(root, validate=False, indexer=indexer)
        files = layout.get(suffix=list(SUFFIXES), datatype="anat", extension=[".nii", ".nii.gz"])
    except Exception as error:  # whatever is wrong with a data set
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{root}: cannot be read as a BIDS data set ({reason})") from error
    wanted = set() if entities == "all" else set(re.split(r"[_,\s]+", entities.strip()))
    scans = []
    for file in files:
        path = Path(file.path)
        parts = set(split_name(path)[0].split("_"))
        if is_result(path) or not wanted <= parts or parts & {"part-phase", "part-real", "part-imag"}:
            continue
        folder = path.parent.relative_to(Path(layout.root))
        scans.append((Path(root) / folder / path.name, str(folder), select_acquisition(file.get_metadata())))
    if not scans:
        what = "" if entities == "all" else f" with {entities}"
        raise InputError(f"{root}: no {' or '.join(SUFFIXES)} volume{what} in this BIDS data set")
    return sorted(scans, key=lambda scan: str(scan[0]))


def describe_derivatives(folder: Path, root: str) -> None:
    """Write the dataset_description.json that makes the output folder a BIDS data set of derivatives, if not there.

    Raises:
        InputError: the folder is a data set of something else.
    """
    path = folder / "dataset_description.json"
    if path.exists():
        check_derivatives(folder)
        return
    content = {
        "Name": "Super-resolved volumes",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "spcdd", "Version": __version__}],
        "DatasetLinks": {"raw": os.path.relpath(root, folder)},
    }
    write_json(path, content)


def check_derivatives(folder: Path) -> None:
    """See that results would not be put into a data set of raw scans.

    Raises:
        InputError: they would.
    """
    path = folder / "dataset_description.json"
    try:
        kind = json.loads(path.read_text()).get("DatasetType", "raw")
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not the description of a data set; choose another output folder") from error
    if kind != "derivative":
        raise InputError(
            f"{folder}: a BIDS data set of raw scans; choose another output folder, such as derivatives/spcdd"
        )
