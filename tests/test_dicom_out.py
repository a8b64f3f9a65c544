import json
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from data import head
from dicom_data import CANARY, IDENTIFYING, affine_of, write_classic, write_multiframe
from scipy.spatial.transform import Rotation

from bundle.dicom import find_series
from bundle.io import read_volume
from bundle.job import enhance

VOLUME = (head((24, 28, 18)) + 3).astype(np.uint16)
AFFINE = affine_of((1, 1.2, 2), Rotation.from_euler("xyz", [12, -8, 31], degrees=True).as_matrix())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A classic series and a multi-frame file, each enhanced with DICOM output, and what was printed."""
    base = tmp_path_factory.mktemp("dicom")
    write_classic(base / "in" / "a", VOLUME, AFFINE)
    write_multiframe(base / "in" / "b" / "x.dcm", VOLUME, AFFINE)
    enhance(str(base / "in"), str(base / "out"), dicom="true", save_uncertainty="true", save_tissue="true")
    return base


@pytest.mark.parametrize(("folder", "number"), [("a", 3), ("b", 4)])
def test_itk_and_pydicom_read_the_series_where_the_nifti_lies(results, folder, number):
    stem = results / "out" / folder / f"{folder}_series-{number}_desc-superres"
    nifti = nib.load(f"{stem}.nii.gz")
    files = sorted(Path(f"{stem}_dicom").iterdir())
    assert len(files) == nifti.shape[2] == 36
    own = read_volume([str(path) for path in files])
    assert np.allclose(own.affine, nifti.affine, atol=1e-4)
    span = float(np.ptp(nifti.get_fdata()))
    assert np.abs(own.numpy()[0] - nifti.get_fdata()).max() < span / 60000
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(f"{stem}_dicom")
    (uid,) = names.GetSeriesUIDs()
    image = itk.imread([str(name) for name in names.GetFileNames(uid)], itk.F)
    assert np.allclose(itk.array_from_image(image).transpose(), own.numpy()[0], rtol=1e-5, atol=1e-2)
    assert tuple(itk.spacing(image)) == pytest.approx(tuple(nifti.header.get_zooms()), rel=1e-4)
    middle = pydicom.dcmread(files[17])
    values = middle.pixel_array.T * float(middle.RescaleSlope) + float(middle.RescaleIntercept)
    assert np.abs(values - nifti.get_fdata()[:, :, 17]).max() < span / 60000


@pytest.mark.parametrize(("folder", "number"), [("a", 3), ("b", 4)])
def test_the_series_is_new_derived_and_of_the_same_patient_and_study(results, folder, number):
    (series,) = find_series(results / "in" / folder)
    source = pydicom.dcmread(series.files[0])
    images = [pydicom.dcmread(p) for p in sorted((results / "out" / folder).glob("*_dicom/*"))]
    first = images[0]
    for key in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert first[key].value == source[key].value
    assert first.SeriesInstanceUID != source.SeriesInstanceUID and first.SeriesNumber == number + 1000
    own = {image.SOPInstanceUID for image in images}
    theirs = {pydicom.dcmread(path).SOPInstanceUID for path in series.files}
    assert len(own) == len(images) and not own & theirs
    assert {image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in images} == theirs
    assert first.ImageType[:2] == ["DERIVED", "SECONDARY"] and first.SOPClassUID.name == "MR Image Storage"
    assert "research use only" in first.DerivationDescription and "7 T-like" in first.DerivationDescription
    assert [int(image.InstanceNumber) for image in images] == list(range(1, 37))


def test_no_identifier_leaves_the_dicom_files(results, capsys):
    files = [p for p in (results / "out").rglob("*") if p.is_file() and "_dicom" not in str(p)]
    assert {p.name.split("_desc-")[1] for p in files} == {
        "superres.nii.gz",
        "superres.json",
        "tissue.nii.gz",
        "uncertainty.nii.gz",
    }
    source = pydicom.dcmread(find_series(results / "in" / "a")[0].files[0])
    uids = [str(e.value) for e in source if e.VR == "UI" and "SeriesInstance" in e.keyword + "SOPInstance"]
    secret = {CANARY, *uids, str(source.StudyInstanceUID), *(v for k, v in IDENTIFYING.items() if "Date" in k)}
    secret.add(str(source.SeriesInstanceUID))
    for path in files:
        content = nib.load(path).to_bytes() if path.suffix == ".gz" else path.read_bytes()
        assert not [word for word in secret if word.encode() in content], path
    sidecar = json.loads(next(p for p in files if p.suffix == ".json").read_text())
    assert sidecar["Source"] in ("series-3", "series-4") and sidecar["Modality"] == "T1w"


def test_nothing_that_is_printed_identifies(tmp_path, capfd):
    write_classic(tmp_path / "good", VOLUME, uid="1.2.3.45678.90123")
    write_classic(tmp_path / "bad", VOLUME, skip=[5], uid="1.2.3.45678.90124")
    with pytest.raises(SystemExit) as ended:
        enhance(str(tmp_path), str(tmp_path / "out"))
    text = str(ended.value) + "".join(capfd.readouterr())
    assert "1 image is missing" in text and CANARY not in text and "1.2.3.45678" not in text and "19010203" not in text


def test_the_same_job_makes_the_same_series_again(tmp_path):
    write_classic(tmp_path / "a", VOLUME)
    for _ in range(2):
        enhance(str(tmp_path / "a"), str(tmp_path / "out"), dicom="true", overwrite="true")
    first = sorted((tmp_path / "out").glob("*_dicom/*"))[0]
    before = first.read_bytes()
    enhance(str(tmp_path / "a"), str(tmp_path / "two"), dicom="true")
    assert sorted((tmp_path / "two").glob("*_dicom/*"))[0].read_bytes() == before
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "a_series-3_desc-superres.json",
        "a_series-3_desc-superres.nii.gz",
        "a_series-3_desc-superres_dicom",
    ]


def test_a_result_without_the_dicom_that_is_asked_for_is_made_again(tmp_path, capsys):
    write_classic(tmp_path / "a", VOLUME)
    enhance(str(tmp_path / "a"), str(tmp_path / "out"))
    enhance(str(tmp_path / "a"), str(tmp_path / "out"), dicom="true")
    assert list((tmp_path / "out").glob("*_dicom")) and "skipped" not in capsys.readouterr().out
    enhance(str(tmp_path / "a"), str(tmp_path / "out"), dicom="true")
    assert "series-3: done before, skipped" in capsys.readouterr().out


def test_dicom_output_of_another_input_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(head((20, 20, 20)), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(SystemExit, match="a.nii: --dicom true needs a DICOM input"):
        enhance(str(tmp_path / "a.nii"), str(tmp_path / "out"), dicom="true")
    assert not (tmp_path / "out").exists()
