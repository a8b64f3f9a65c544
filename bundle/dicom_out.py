"""A DICOM series of the result: classic MR images that keep the source's patient and study, and say what they are.

Modules and their obligations are those of the MR Image IOD (DICOM PS3.3, A.4 and C.8.3).
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from . import __version__
from .dicom import read_header

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
SERIES_OFFSET = 1000  # added to the source's series number
# what the result shares with its source: whose it is, from which study and machine, in which frame of reference
_SHARED = [
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyDescription",
    "ReferringPhysicianName",
    "StudyInstanceUID",
    "StudyID",
    "InstitutionName",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "BodyPartExamined",
    "PatientPosition",
    "Laterality",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "EchoTime",
    "EchoTrainLength",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "ImagedNucleus",
]
_EMPTY = [
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PositionReferenceIndicator",
    "Manufacturer",
    "ScanOptions",
    "MRAcquisitionType",
    "EchoTime",
    "EchoTrainLength",
    "RepetitionTime",
    "Laterality",
]  # have to be there, and may be empty
_HOW = (  # options that change how the work is done, and not the volume
    *("device", "max_memory", "overwrite", "on_error", "workers", "scheduler"),
    *("series", "dicom", "report", "save_tissue", "save_uncertainty"),
)
_FUNCTIONAL = {
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRTimingAndRelatedParametersSequence": {k: k for k in ("RepetitionTime", "FlipAngle", "EchoTrainLength")},
}


def write_series(folder: Path, volume: np.ndarray, affine: np.ndarray, files: Sequence[str], about: Mapping) -> None:
    """Write one image per slice of the last axis; the folder appears when all are there.

    The UIDs follow from the source's and from what was done, so that the same job makes the same series again.

    Args:
        folder: to make; one that is there is replaced.
        volume: (columns, rows, slices), the source's units.
        affine: 4x4 voxel to world mm (RAS+).
        files: of the source series.
        about: the sidecar.
    """
    source = read_header(files[0])
    seed = [str(source.get("SeriesInstanceUID", "")), str(source.get("SOPInstanceUID", "")), _recipe(about)]
    common = _common(source, about, seed)
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        scale = _scale(volume)
        nearest = _sources(files, affine, volume.shape[2])
        for k in range(volume.shape[2]):
            image = _image(common, volume[:, :, k], affine, k, scale, seed, nearest[k])
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            _save(image, temporary / f"{k + 1:04d}.dcm")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recipe(about: Mapping[str, Any]) -> str:
    options = {name: value for name, value in about["Options"].items() if name not in _HOW}
    return repr([about["GeneratedBy"], options, about["Contrast"], about["Factors"]])


def _common(source: Dataset, about: Mapping[str, Any], seed: list[str]) -> FileDataset:
    """What all images of the series have in common."""
    image = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MR_IMAGE
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for element in source:
        if element.tag.group == 0x0010 or element.keyword in _SHARED:  # group 0010: the patient
            image.add(element)
    for key, value in _functional(source).items():
        setattr(image, key, value)
    for key in _EMPTY:
        if key not in image:
            setattr(image, key, "")
    image.ScanningSequence = image.get("ScanningSequence") or "RM"
    image.SequenceVariant = image.get("SequenceVariant") or "NONE"
    image.Modality = "MR"
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.SeriesInstanceUID = generate_uid(entropy_srcs=seed)
    image.SeriesNumber = int(source.get("SeriesNumber") or 0) + SERIES_OFFSET
    image.FrameOfReferenceUID = source.get("FrameOfReferenceUID") or generate_uid(entropy_srcs=[*seed, "frame"])
    like = "7T-like, simulated contrast" if about["Contrast"] == "7T" else "input contrast"
    image.SeriesDescription = f"Super-resolved ({like})"
    image.DerivationDescription = f"{about['Description']}; spcdd {__version__}"[:1024]
    image.SoftwareVersions = f"spcdd {__version__}"
    image.BurnedInAnnotation = "NO"
    image.ImageComments = "Research use only, not for diagnosis"
    image.ContributingEquipmentSequence = Items([_equipment()])
    return image


def _equipment() -> Dataset:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "109102", "DCM", "Processing Equipment"
    item.PurposeOfReferenceCodeSequence = Items([code])
    item.Manufacturer, item.SoftwareVersions = "spcdd", __version__
    return item


def _functional(source: Dataset) -> dict[str, Any]:
    """Timing of a multi-frame source, under its classic names."""
    found = {}
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(source.get(groups) or [])[:1]:
            for sequence, names in _FUNCTIONAL.items():
                for item in list(group.get(sequence) or [])[:1]:
                    found |= {new: item[old].value for old, new in names.items() if old in item}
    return found


def _scale(volume: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that use all of 16 bits, as decimal strings can hold them."""
    low, high = float(volume.min()), float(volume.max())
    slope = float(f"{max((high - low) / 65535, 1e-12) * 1.0001:.8g}")
    return slope, float(f"{low:.8g}")


def _image(
    common: FileDataset, pixels: np.ndarray, affine: np.ndarray, k: int, scale: tuple, seed: list[str], source: Dataset
) -> FileDataset:
    """One image: ``pixels`` (columns, rows) of slice ``k``."""
    image = FileDataset("", {}, file_meta=common.file_meta, preamble=b"\0" * 128)
    image.update(common)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SOPInstanceUID = generate_uid(entropy_srcs=[*seed, str(k)])
    image.InstanceNumber = k + 1
    image.ImagePositionPatient = [_decimal(v) for v in lps[:3] @ [0, 0, k, 1]]
    image.ImageOrientationPatient = [_decimal(v) for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
    image.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    image.SliceThickness = image.SpacingBetweenSlices = _decimal(spacing[2])
    slope, intercept = scale
    stored = np.clip(np.rint((pixels.T.astype(np.float64) - intercept) / slope), 0, 65535).astype("<u2")
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = _decimal(slope), _decimal(intercept), "US"
    image.SourceImageSequence = Items([source])
    image.PixelData = stored.tobytes()
    image["PixelData"].VR = "OW"
    return image


def _sources(files: Sequence[str], affine: np.ndarray, count: int) -> list[Dataset]:
    """For every slice a reference to the source image nearest to it (the file, where there is only one)."""
    headers = [read_header(f, ["SOPClassUID", "SOPInstanceUID", "ImagePositionPatient"]) for f in files]
    nearest = [0] * count
    if len(headers) > 1:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        normal = np.cross(lps[:3, 0], lps[:3, 1])
        depth = np.array([np.array(h.ImagePositionPatient, dtype=float) for h in headers]) @ normal
        wanted = np.array([lps[:3] @ [0, 0, k, 1] for k in range(count)]) @ normal
        nearest = [int(np.abs(depth - w).argmin()) for w in wanted]
    items = []
    for index in nearest:
        item = Dataset()
        item.ReferencedSOPClassUID = headers[index].SOPClassUID
        item.ReferencedSOPInstanceUID = headers[index].SOPInstanceUID
        items.append(item)
    return items


def _decimal(value: float) -> str:
    """Decimal string of at most 16 characters."""
    for digits in range(15, 5, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{value:.6g}"


def _save(image: FileDataset, path: Path) -> None:
    """Write a file with a whole preamble and meta header, as pydicom 2 and 3 each want to be told."""
    if int(pydicom.__version__.split(".")[0]) >= 3:
        pydicom.dcmwrite(path, image, enforce_file_format=True)
        return
    image.is_little_endian, image.is_implicit_VR = True, False
    pydicom.dcmwrite(path, image, write_like_original=False)
