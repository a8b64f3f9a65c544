"""Volumes in and out: finding, reading with checks, naming, writing without half files."""

import hashlib
import json
import os
import re
import struct
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.image_reader import ITKReader

from .errors import InputError
from .geometry import check_grid
from .writing import replacing

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
RESULT, UNCERTAINTY, TISSUE = "desc-superres", "desc-uncertainty", "desc-tissue"  # parts of the names of results
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, zlib.error),
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
        found = [p for p in found if not any(part in p.name for part in (RESULT, UNCERTAINTY, TISSUE))]
    if not found:
        raise InputError(f"{path}: no volume in this folder; looked for {kinds}")
    return found


def result_name(path: Path, part: str = RESULT) -> str:
    """Name of a result: ``<stem>_<part>.nii.gz``, with a BIDS suffix kept last (``sub-01_<part>_T1w.nii.gz``)."""
    stem = split_name(path)[0]
    bids = re.fullmatch(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)", stem)
    return f"{bids[1]}_{part}_{bids[2]}.nii.gz" if bids else f"{stem}_{part}.nii.gz"


def read_volume(path: str | os.PathLike) -> MetaTensor:
    """A 3D volume as MetaTensor (1, D, H, W), float32, with its affine to world mm (RAS+) and its NIfTI form codes.

    The header of a NIfTI is checked before its voxels are read.

    Raises:
        InputError: missing, unreadable, not 3D, a header that no brain volume has (see ``check_grid``).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    try:
        array, affine, codes = (_read_nifti if ".nii" in split_name(path)[1] else _read_itk)(path)
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error
    meta = {"filename_or_obj": str(path), "form_codes": torch.tensor(codes)}
    volume = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]
    return MetaTensor(volume, affine=torch.from_numpy(affine), meta=meta)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    image = nib.load(path)
    shape = _squeezed(image.shape)
    check_grid(shape, image.affine, str(path))
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path}: voxels of type {image.get_data_dtype()}; only real numbers are allowed")
    codes = (
        (int(image.header["qform_code"]), int(image.header["sform_code"])) if "qform_code" in image.header else (0, 0)
    )
    return np.asanyarray(image.dataobj).reshape(shape), np.asarray(image.affine, dtype=np.float64), codes


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    reader = ITKReader()
    image = reader.read(str(path))
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: {image.GetNumberOfComponentsPerPixel()} values per voxel; a scalar volume is needed")
    array, meta = reader.get_data(image)
    shape, affine = _squeezed(array.shape), np.asarray(meta["affine"], dtype=np.float64)
    check_grid(shape, affine, str(path))
    return array.reshape(shape), affine, (1, 1)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape without trailing axes of length one."""
    shape = tuple(int(n) for n in shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


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

    A large result is compressed in a fraction of the time, and every reader of gzip takes it.
    """
    view = memoryview(content)
    starts = range(0, len(view), chunk)

    def deflate(start: int) -> bytes:
        stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        last = start + chunk >= len(view)
        return stream.compress(view[start : start + chunk]) + stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(deflate, starts))
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
    return b"".join([header, *parts, struct.pack("<II", zlib.crc32(view), len(view) % 2**32)])


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
