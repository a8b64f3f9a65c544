"""Volumes in and out: finding, reading with checks, naming, writing without half files."""

import hashlib
import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from isal import isal_zlib
from monai.data import MetaTensor

from .errors import InputError
from .itk_files import read_itk
from .nifti import read_nifti
from .scan import Scan, check_values
from .writing import replacing

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
RESULT, UNCERTAINTY, TISSUE = "desc-superres", "desc-uncertainty", "desc-tissue"  # parts of the names of results
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError, zlib.error),
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError),
)


def split_name(path: Path) -> tuple[str, str]:
    """Stem and extension, where ``.nii.gz`` counts as one extension; extension is empty for other files."""
    for extension in EXTENSIONS:
        if path.name.lower().endswith(extension):
            return path.name[: -len(extension)], extension
    return path.name, ""


def find_volumes(source: str | os.PathLike) -> list[Path]:
    """Volumes named by ``source``: the file itself, or all files of a folder (not of its subfolders), sorted.

    Hidden files and the results of an earlier run are left out.

    Raises:
        InputError: nothing there, an unknown kind of file, or a folder without volumes.
    """
    path, kinds = Path(source), ", ".join(EXTENSIONS)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        found = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    except OSError as error:
        raise InputError(f"{str(path)[:200]}: cannot be looked at ({error.strerror})") from error
    if not path.is_dir() and not split_name(path)[1]:
        raise InputError(f"{path}: not a volume by its name; allowed are {kinds}")
    if path.is_dir():
        found = [p for p in found if split_name(p)[1] and not p.name.startswith(".")]
        found = [p for p in found if not is_result(p)]
    if not found:
        raise InputError(f"{path}: no volume in this folder; looked for {kinds}")
    return found


def name_parts(path: Path) -> tuple[str, str]:
    """Stem of a result's name and what comes after the part's name: a BIDS suffix stays last."""
    stem = split_name(path)[0]
    bids = re.fullmatch(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)", stem)
    return (bids[1], f"_{bids[2]}") if bids else (stem, "")


def join_name(stem: str, suffix: str, part: str = RESULT) -> str:
    """``<stem>_<part><suffix>.nii.gz``, the parts of a name as :func:`name_parts` gives them."""
    return f"{stem}_{part}{suffix}.nii.gz"


def result_name(path: Path, part: str = RESULT) -> str:
    """Name of a result: ``<stem>_<part>.nii.gz``, with a BIDS suffix kept last (``sub-01_<part>_T1w.nii.gz``)."""
    return join_name(*name_parts(path), part)


def is_result(path: Path) -> bool:
    """Whether a file is a result of an earlier run, by its name."""
    return any(part in path.name for part in (RESULT, UNCERTAINTY, TISSUE))


def dicom_folder(result: Path) -> Path:
    """Folder of the DICOM series beside a result."""
    return result.with_name(f"{split_name(result)[0]}_dicom")


def read_volume(source: str | os.PathLike | Sequence[str]) -> MetaTensor:
    """A 3D volume as MetaTensor (1, D, H, W), float32, with its affine to world mm (RAS+) and its NIfTI form codes.

    ``meta`` also holds ``acquisition``, a dict of what header or sidecar say about it (such as ImageType and
    MagneticFieldStrength, never who was scanned), ``warnings``, and ``stored_as``, the type of the voxels in the file.

    Args:
        source: a file, or the files of one DICOM series. Headers are checked before voxels are read.

    Raises:
        InputError: missing, unreadable, not 3D, a header that no brain volume has (see ``check_grid``).
    """
    files = [Path(source)] if isinstance(source, str | os.PathLike) else [Path(path) for path in source]
    path = files[0]
    for file in files:
        if not file.is_file():
            link = " (a link to something that is not here)" if file.is_symlink() else ""
            raise InputError(f"{file}: no such file{link}")
        if file.stat().st_size == 0:
            raise InputError(f"{file}: the file is empty")
    try:
        scan = _reader(path)(files if split_name(path)[1] == "" else path)
        check_values(scan.array, str(path))
    except InputError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error
    meta = {
        "filename_or_obj": str(path),
        "form_codes": torch.tensor(scan.codes),
        "acquisition": scan.acquisition,
        "warnings": list(scan.warnings),
        "stored_as": str(scan.array.dtype),
    }
    with np.errstate(over="ignore"):
        volume = torch.from_numpy(np.ascontiguousarray(scan.array, dtype=np.float32))[None]
    return MetaTensor(volume, affine=torch.from_numpy(scan.affine), meta=meta)


def _reader(path: Path) -> Callable[[Any], Scan]:
    extension = split_name(path)[1]
    if extension == "":
        from .dicom import read_series  # pydicom is loaded where there is DICOM only

        return read_series
    return read_nifti if ".nii" in extension else read_itk


def write_volume(path: Path, volume: np.ndarray, affine: np.ndarray, codes: tuple[int, int]) -> None:
    """Write a NIfTI whose qform and sform are both ``affine``, with the given codes (1 where a code is 0)."""
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=codes[0] or codes[1] or 1)
    image.set_sform(affine, code=codes[1] or codes[0] or 1)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        temporary.write_bytes(compress(image.to_bytes()))


def compress(content: bytes, chunk: int = 2**22) -> bytes:
    """Gzip as one member, its chunks compressed in parallel and joined at byte borders, as pigz does.

    With ISA-L, which is several times faster than zlib at the same size, the disk is the limit; every reader takes it.
    """
    view = memoryview(content)
    starts = range(0, len(view), chunk)

    def deflate(start: int) -> bytes:
        stream = isal_zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        last = start + chunk >= len(view)
        return stream.compress(view[start : start + chunk]) + stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(deflate, starts))
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
    return b"".join([header, *parts, struct.pack("<II", isal_zlib.crc32(view), len(view) % 2**32)])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare_output(folder: str | os.PathLike) -> Path:
    """Make the output folder and see that files can be made there.

    Raises:
        InputError: it cannot.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot write here ({error.strerror}); choose another output folder") from error
    return folder
