"""DICOM series: found by their headers (pydicom), checked for being one whole stack, read by ITK.

Who was scanned stays in the files: of a header only what :data:`bundle.nifti.ACQUISITION` names goes on, and messages
speak of series by number and of images by position.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from .dicom_stack import Slice, check_stack, frames_of, stack_affine
from .errors import InputError
from .geometry import check_grid
from .io import split_name
from .modality import modality_of_acquisition
from .nifti import select_acquisition
from .scan import Scan, check_size

_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "MagneticFieldStrength",
    "Manufacturer",
    "ComplexImageComponent",
    "InstanceNumber",
]
_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_SUFFIXES = (".dcm", ".ima")


class Series(NamedTuple):
    """One volume's images: ``number`` of the series (with a letter where several share it), its words, its files."""

    number: str
    uid: str
    description: str
    files: tuple[str, ...]
    images: int
    size: str


def read_header(path: str | os.PathLike, tags: Sequence[str] | None = None) -> Dataset:
    """Header of a DICOM file, without its pixels.

    Raises:
        InputError: not DICOM, or damaged. pydicom's own words are left out: they may quote what identifies.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            force = Path(path).suffix.lower() in _SUFFIXES  # files without preamble exist
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags and list(tags), force=force)
            header.get("SOPClassUID"), header.get("SeriesInstanceUID")
            return header
    except Exception as error:  # a damaged header raises anything
        raise InputError(f"{path}: cannot be read as DICOM ({type(error).__name__})") from None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name or its first bytes."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_series(folder: Path, deep: bool = True) -> list[Series]:
    """All image series in a folder, with ``deep`` in its subfolders too (links to folders are not followed).

    A damaged file is left out here, and then missing from its series, which is refused when it is read. Objects without
    pixels (reports, presentation states) are passed over.
    """
    groups: dict[tuple, list[tuple[str, Dataset]]] = {}
    for path in _files(folder, deep):
        try:
            header = read_header(path, _TAGS)
            if "Rows" not in header or "SOPClassUID" not in header:
                continue
            single = str(path) if int(header.get("NumberOfFrames") or 1) > 1 else ""
            uid = str(header.get("SeriesInstanceUID", ""))
        except (InputError, ValueError, TypeError):
            continue
        groups.setdefault((str(path.parent), uid, single), []).append((str(path), header))
    return _numbered([part for group in groups.values() for part in _split_echoes(group)])


def _files(folder: Path, deep: bool) -> list[Path]:
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if deep and not f.startswith(".") and "desc-superres" not in f)
        found += [Path(where) / name for name in sorted(names) if not name.startswith(".") and name != "DICOMDIR"]
    return [path for path in found if not split_name(path)[1] and path.is_file() and is_dicom(path)]


def _split_echoes(group: list[tuple[str, Dataset]]) -> list[list[tuple[str, Dataset]]]:
    """A series whose positions occur several times, by echo time and image type, if each part has them once."""

    def positions(part: list[tuple[str, Dataset]]) -> list[str]:
        return [str(header.get("ImagePositionPatient", i)) for i, (_, header) in enumerate(part)]

    if len(set(positions(group))) == len(group):
        return [group]
    parts: dict[tuple[str, str], list[tuple[str, Dataset]]] = {}
    for path, header in group:
        key = (str(header.get("EchoTime", "")), str(header.get("ImageType", "")))
        parts.setdefault(key, []).append((path, header))
    whole = all(len(set(positions(part))) == len(part) for part in parts.values())
    return list(parts.values()) if whole else [group]


def _numbered(groups: list[list[tuple[str, Dataset]]]) -> list[Series]:
    found = []
    for group in groups:
        header = group[0][1]
        images = max(len(group), int(header.get("NumberOfFrames") or 1))
        words = f"{header.get('SeriesDescription', '')}\n{header.get('ProtocolName', '')}"
        number = _digits(header)
        size = f"{images} images of {header.get('Columns')} x {header.get('Rows')}"
        uid = str(header.get("SeriesInstanceUID", ""))
        found.append(Series(number, uid, words, tuple(path for path, _ in group), images, size))
    found.sort(key=lambda s: (str(Path(s.files[0]).parent), int(s.number), s.uid, s.files))
    keys = [(str(Path(s.files[0]).parent), s.number) for s in found]
    total, seen, named = Counter(keys), Counter(), []
    for series, key in zip(found, keys, strict=True):
        letter = chr(ord("a") + seen[key]) if seen[key] < 26 else f"-{seen[key]}"
        named.append(series._replace(number=series.number + (letter if total[key] > 1 else "")))
        seen[key] += 1
    return named


def _digits(header: Dataset) -> str:
    return re.sub(r"[^0-9]", "", str(header.get("SeriesNumber") or "")) or "0"


def choose_series(found: list[Series], wanted: str, folder: Path) -> list[Series]:
    """Those that ``wanted`` names: ``all``, a UID, a number, or words of the description (whatever their case).

    Raises:
        InputError: none; the message lists the numbers there are.
    """
    if wanted == "all":
        return found
    chosen = [s for s in found if wanted in (s.uid, s.number)] or [
        s for s in found if s.number.rstrip("abcdefghijklmnopqrstuvwxyz") == wanted
    ]
    chosen = chosen or [
        s for s in found if wanted.casefold() in (line.casefold() for line in s.description.split("\n"))
    ]
    chosen = chosen or [s for s in found if wanted.casefold() in s.description.casefold()]
    if not chosen:
        there = ", ".join(f"{s.number} ({s.size})" for s in found)
        raise InputError(f"{folder}: no series that --series names; there are {there}")
    return chosen


def read_series(files: Sequence[Path]) -> Scan:
    """The volume of one series (classic, or one multi-frame file).

    Raises:
        InputError: a localiser, mixed orientations, missing images, uneven gaps, several images at one position, phase
            images, colour, another modality than MR; the message says what is missing.
    """
    headers = [read_header(path, [*_TAGS, *_GROUPS]) for path in files]
    name = str(files[0].parent / f"series-{_digits(headers[0])}")
    try:
        _check_kind(headers[0], name)
        slices = [s for i, header in enumerate(headers) for s in frames_of(header, i)]
    except InputError:
        raise
    except Exception as error:  # a damaged header raises anything
        raise InputError(f"{name}: its DICOM header is damaged ({type(error).__name__})") from None
    order, notes = check_stack(slices, name)
    slices = [slices[i] for i in order]
    shape = (*slices[0].shape, len(slices))
    bits = int(headers[0].get("BitsAllocated") or 16)
    raw = sum(path.stat().st_size for path in files)
    check_size(shape, bits // 8, raw, True, name)
    affine = stack_affine(slices)
    check_grid(shape, affine, name)
    array = _read_pixels([str(files[s.file]) for s in slices], order, affine, shape, name)
    return Scan(array, affine, (1, 1), _acquisition(headers[0], slices[0]), notes)


def _check_kind(header: Dataset, name: str) -> None:
    modality, kind = str(header.get("Modality", "MR")), [str(v) for v in header.get("ImageType") or []]
    if modality != "MR":
        raise InputError(f"{name}: DICOM modality {modality[:16]}; only MR is allowed")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(f"{name}: a colour image; a scalar MR image is needed")
    if "LOCALIZER" in kind:
        raise InputError(f"{name}: a localiser (so says its ImageType); choose another series with --series")
    part = str(header.get("ComplexImageComponent") or "MAGNITUDE")
    if part not in ("MAGNITUDE", "MIXED") or (len(kind) > 2 and kind[2] in ("P", "R", "I", "PHASE", "PHASE MAP")):
        raise InputError(f"{name}: a phase, real or imaginary image; the magnitude image is needed")


def _read_pixels(files: list[str], order: list[int], affine: np.ndarray, shape: tuple, name: str) -> np.ndarray:
    """Rescaled voxels (columns, rows, slices) by ITK, whose geometry has to agree with that of the headers."""
    noisy = itk.Object.GetGlobalWarningDisplay()
    itk.Object.SetGlobalWarningDisplay(False)
    try:
        image = itk.imread(files[0] if len(set(files)) == 1 else files, itk.F, imageio=itk.GDCMImageIO.New())
    except Exception as error:
        raise InputError(f"{name}: the pixels cannot be read ({type(error).__name__})") from None
    finally:
        itk.Object.SetGlobalWarningDisplay(noisy)
    array = itk.array_from_image(image).transpose()
    if array.shape != shape:
        raise InputError(
            f"{name}: headers say {shape} voxels, the pixel data holds {array.shape}; export the series again"
        )
    if len(set(files)) == 1 and order != sorted(order):  # frames of one file that are not in order of position
        return array[:, :, order]
    seen = np.eye(4)
    seen[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(itk.spacing(image))
    seen[:3, 3] = itk.origin(image)
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape), [1], indexing="ij"), -1).reshape(-1, 4)
    apart = np.abs(corners @ (np.diag([-1.0, -1, 1, 1]) @ seen - affine).T).max()
    if apart > 0.05 * np.linalg.norm(affine[:3, :3], axis=0).min():
        raise InputError(f"{name}: two readers put the volume {apart:.3g} mm apart; export the series again")
    return array


def _acquisition(header: Dataset, first: Slice) -> dict[str, Any]:
    """What later steps need; the words of the description are used for the modality and left behind."""
    content = {
        "ImageType": [str(v) for v in header.get("ImageType") or []],
        "MagneticFieldStrength": float(header.get("MagneticFieldStrength") or 0) or None,
        "Manufacturer": str(header.get("Manufacturer") or ""),
    }
    words = [str(header.get(key) or "") for key in ("SeriesDescription", "ProtocolName")]
    modality = modality_of_acquisition(words, first.echo, first.repetition, first.inversion)
    return select_acquisition(content) | ({"modality": modality} if modality else {})
