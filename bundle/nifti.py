"""Reading a NIfTI file that may be damaged, or made to do damage: its header is judged before its voxels are read."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .errors import InputError
from .geometry import check_grid
from .scan import Scan, check_size, squeezed

FORMS_APART = 0.1  # voxels between where qform and sform put a corner, above which they disagree
ACQUISITION = ("ImageType", "MagneticFieldStrength", "Manufacturer")  # what is taken from a header or sidecar
_SPARE = 2**26  # bytes that may follow the voxels


def read_nifti(path: Path) -> Scan:
    """A single-file NIfTI-1 or NIfTI-2, plain or gzipped (the checksum of gzip is checked).

    Raises:
        InputError: a header that no brain volume has, or that does not agree with the file or with itself.
        OSError, ValueError: not readable at all.
    """
    packed = _magic(path) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as file:
        start = file.read(540)
        kind = _kind(start)
        header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
        offset = _check_header(header, str(path))
        shape = header.get_data_shape()
        itemsize = header.get_data_dtype().itemsize
        size = offset + check_size(shape, itemsize, path.stat().st_size, packed, str(path))
        content = start + file.read(max(0, size - len(start)))
        _drain(file, str(path))
    if len(content) < size:
        raise InputError(f"{path}: the file is truncated: {len(content)} bytes of {size} that its header claims")
    image = kind.from_bytes(content)
    affine, codes, warnings = _forms(image, str(path))
    check_grid(squeezed(shape), affine, str(path))
    array = np.asanyarray(image.dataobj).reshape(squeezed(shape))
    return Scan(array, affine, codes, read_acquisition(path), warnings)


def _magic(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(2)


def _kind(start: bytes) -> type[nib.Nifti1Image]:
    """Class of image by the size that a header begins with, in either byte order."""
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    if len(start) == 540 and 540 in sizes:
        return nib.Nifti2Image
    if len(start) >= 348 and 348 in sizes and start[344:347] in (b"n+1", b"ni1"):
        return nib.Nifti1Image
    raise ValueError("no NIfTI header")


def _check_header(header: nib.Nifti1Header, name: str) -> int:
    """Offset of the voxels in bytes, if shape, type and spacing are those of a volume."""
    if header["magic"].item()[:2] == b"ni":
        raise InputError(f"{name}: a header whose voxels are in another file; convert the pair to one .nii")
    dimensions = int(header["dim"][0])
    shape = header.get_data_shape() if 1 <= dimensions <= 7 else ()
    if not shape or min(shape) < 1:
        raise InputError(f"{name}: dimensions {header['dim'].tolist()} are not those of a volume; repair the header")
    if len(squeezed(shape)) != 3:
        check_grid(squeezed(shape), np.eye(4), name)
    if int(header["datatype"]) not in nib.nifti1.data_type_codes.value_set("code"):
        raise InputError(f"{name}: voxels of an unknown type ({int(header['datatype'])}); repair the header")
    if header.get_data_dtype().kind not in "iuf":
        kind = {"c": "complex numbers", "V": "colours"}.get(header.get_data_dtype().kind, "an unknown type")
        raise InputError(
            f"{name}: voxels are {kind}; only real numbers are allowed (save the magnitude, or one channel)"
        )
    spacing = header["pixdim"][1:4].astype(float)
    if not (np.isfinite(spacing).all() and spacing.min() > 0):
        text = " x ".join(f"{s:g}" for s in spacing)
        raise InputError(f"{name}: voxel size {text} mm; every one must be above 0; repair the header")
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset <= _SPARE:
        raise InputError(f"{name}: voxels are said to begin at byte {offset:g}; repair the header")
    return int(offset)


def _drain(file: Any, name: str) -> None:
    """Read to the end, which checks a gzip's checksum; a file with much more than its header says is refused."""
    left = _SPARE
    while chunk := file.read(2**20):
        left -= len(chunk)
        if left < 0:
            raise InputError(f"{name}: the file holds far more bytes than its header says; repair the header")


def _forms(image: nib.Nifti1Image, name: str) -> tuple[np.ndarray, tuple[int, int], tuple[str, ...]]:
    """Affine (the sform's where there is one), the codes of both forms, and warnings.

    Raises:
        InputError: both forms claim the same space and put the volume at different places.
    """
    q, s = int(image.header["qform_code"]), int(image.header["sform_code"])
    affine = np.asarray(image.affine, dtype=np.float64)
    if q == 0 and s == 0:
        return (
            affine,
            (q, s),
            ("the header has neither qform nor sform; left and right follow from the order of voxels",),
        )
    if q == 0 or s == 0:
        return affine, (q, s), ()
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in image.shape[:3]), [1], indexing="ij"), -1).reshape(-1, 4)
    shift = corners @ (image.get_qform() - image.get_sform()).T
    apart = float(np.linalg.norm(shift, axis=1).max() / image.header["pixdim"][1:4].min())
    if apart <= FORMS_APART:
        return affine, (q, s), ()
    text = f"qform and sform (codes {q} and {s}) lie {apart:.3g} voxels apart"
    if q == s:
        raise InputError(f"{name}: {text} in the same space; repair the header (set one code to 0)")
    return affine, (s, s), (f"{text}; the sform was used",)


def read_acquisition(path: Path) -> dict[str, Any]:
    """What the JSON sidecar beside a volume says about its acquisition; empty without one."""
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        content = json.loads(sidecar.read_text())
    except (OSError, ValueError):
        return {}
    return select_acquisition(content) if isinstance(content, dict) else {}


def select_acquisition(content: dict[str, Any]) -> dict[str, Any]:
    """The entries that later steps need, and no other: none of them says who was scanned."""
    return {name: content[name] for name in ACQUISITION if content.get(name) not in (None, "", [])}
