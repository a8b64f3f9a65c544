"""Small DICOM series for the tests, full of what identifies a person."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CANARY = "Quaxolotl"  # in every text that identifies
MR, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
IDENTIFYING = {
    "PatientName": f"{CANARY}^Name",
    "PatientID": f"{CANARY}-ID",
    "PatientBirthDate": "19010203",
    "OtherPatientIDs": f"{CANARY}-other",
    "PatientAddress": f"{CANARY} street",
    "AccessionNumber": f"{CANARY}-acc",
    "ReferringPhysicianName": f"{CANARY}^Doctor",
    "InstitutionName": f"{CANARY} hospital",
    "StudyDescription": f"{CANARY} study",
    "SeriesDescription": f"{CANARY} t1_mprage",
    "ProtocolName": f"{CANARY} protocol",
    "StudyID": f"{CANARY}",
    "StudyDate": "20010203",
    "StationName": f"{CANARY}",
    "OperatorsName": f"{CANARY}^Operator",
    "DeviceSerialNumber": f"{CANARY}",
    "ImageComments": f"{CANARY}",
}


def affine_of(spacing=(1.0, 1.0, 2.0), turn=None):
    """RAS affine with the axes of an axial series (columns to the left, rows to the back), turned by a 3x3 matrix."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)
    affine[:3, 3] = [20, 25, -15]
    return affine


def _geometry(affine):
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    orientation = [f"{v:.10g}" for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
    return lps, spacing, orientation


def _text(vector):
    return [f"{v:.10g}" for v in vector]


def _base(sop_class, uid, number, **more):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SeriesInstanceUID = sop_class, uid
    image.StudyInstanceUID = image.FrameOfReferenceUID = generate_uid(entropy_srcs=[uid, "study"])
    image.SeriesNumber, image.Modality = number, "MR"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "DIS3D"]
    image.MagneticFieldStrength, image.Manufacturer = "1.5", "Maker"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    for key, value in {**IDENTIFYING, **more}.items():
        setattr(image, key, value)
    return image


def _write(image, path):
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    pydicom.dcmwrite(path, image, enforce_file_format=True)


def write_classic(folder, volume, affine=None, number=3, uid=None, change=None, skip=(), shift=(), **more):
    """One file per slice of ``volume`` (columns, rows, slices), named in reverse.

    Args:
        change: called with every dataset and its index before it is written.
        skip: slices that are left out.
        shift: mm along the normal by which single slices are moved, ``{index: mm}``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    affine = affine_of() if affine is None else affine
    lps, spacing, orientation = _geometry(affine)
    uid = uid or generate_uid(entropy_srcs=[str(folder), str(number)])
    count = volume.shape[2]
    for k in range(count):
        if k in skip:
            continue
        image = _base(MR, uid, number, **more)
        where = lps[:3] @ [0, 0, k, 1] + dict(shift).get(k, 0) * lps[:3, 2] / spacing[2]
        image.InstanceNumber, image.ImagePositionPatient = k + 1, _text(where)
        image.ImageOrientationPatient, image.PixelSpacing = orientation, _text(spacing[[1, 0]])
        image.SliceThickness = f"{spacing[2]:.10g}"
        image.Columns, image.Rows = volume.shape[:2]
        image.PixelData = volume[:, :, k].T.astype("<u2").tobytes()
        image["PixelData"].VR = "OW"
        if change:
            change(image, k)
        _write(image, folder / f"{number}_{count - k:03d}.dcm")
    return folder


def write_multiframe(path, volume, affine=None, number=4, order=None, slopes=None, **more):
    """One enhanced file, its frames in ``order``."""
    affine = affine_of() if affine is None else affine
    lps, spacing, orientation = _geometry(affine)
    image = _base(ENHANCED, generate_uid(entropy_srcs=[str(path)]), number, **more)
    order = list(range(volume.shape[2])) if order is None else order
    frames = []
    for i, k in enumerate(order):
        frame, position, plane, measure, value = (Dataset() for _ in range(5))
        position.ImagePositionPatient = _text(lps[:3] @ [0, 0, k, 1])
        plane.ImageOrientationPatient = orientation
        measure.PixelSpacing, measure.SliceThickness = _text(spacing[[1, 0]]), f"{spacing[2]:.10g}"
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = str((slopes or [1] * len(order))[i]), "0", "US"
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = Sequence([position]), Sequence([plane])
        frame.PixelMeasuresSequence, frame.PixelValueTransformationSequence = Sequence([measure]), Sequence([value])
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = Sequence(frames)
    image.NumberOfFrames = len(order)
    image.Columns, image.Rows = volume.shape[:2]
    image.PixelData = volume[:, :, order].transpose(2, 1, 0).astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(image, path)
    return path
