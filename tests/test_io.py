import gzip
import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from data import head, save
from scipy.spatial.transform import Rotation

from bundle.errors import InputError
from bundle.io import (
    compress,
    find_volumes,
    prepare_output,
    read_volume,
    result_name,
    write_volume,
)

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -170, 25], degrees=True).as_matrix() * [0.9, 1.1, 1.4]
OBLIQUE[:3, 3] = [30, -20, 5]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_text("hello"), "cannot be read as an image"),
        (lambda p: p.write_bytes(gzip.compress(b"x" * 900)), "cannot be read as an image"),
        (lambda p: save(p, np.zeros((20, 20, 20, 5), np.float32)), "4 axes"),
        (lambda p: save(p, np.zeros((20, 20), np.float32)), "2 axes"),
        (lambda p: save(p, np.zeros((20, 20, 9), np.float32)), "at least 16"),
        (lambda p: save(p, np.zeros((20, 20, 20), np.complex64)), "complex numbers; only real"),
    ],
)
def test_bad_files_are_refused_with_name_and_reason(tmp_path, make, words):
    path = tmp_path / "scan.nii.gz"
    make(path)
    with pytest.raises(InputError, match=words) as error:
        read_volume(path)
    assert "scan.nii.gz" in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = save(tmp_path / "scan.nii.gz", head())
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(path)


def test_nifti_keeps_voxels_affine_and_form_codes(tmp_path):
    path = save(tmp_path / "scan.nii", head()[..., None], OBLIQUE, (0, 4))
    volume = read_volume(path)
    assert volume.shape == (1, *head().shape) and np.array_equal(volume.numpy()[0], head())
    assert np.allclose(volume.affine, OBLIQUE, atol=1e-6)
    assert volume.meta["form_codes"].tolist() == [0, 4]


@pytest.mark.parametrize("extension", [".nrrd", ".mha"])
def test_other_formats_mean_the_same_as_nifti(tmp_path, extension):
    image = sitk.ReadImage(str(save(tmp_path / "scan.nii", head(), np.diag([-0.8, -1.1, 1.4, 1.0]))))
    sitk.WriteImage(image, str(tmp_path / f"scan{extension}"))
    nifti, other = read_volume(tmp_path / "scan.nii"), read_volume(tmp_path / f"scan{extension}")
    assert np.array_equal(nifti.numpy(), other.numpy()) and np.allclose(nifti.affine, other.affine, atol=1e-5)


def test_a_folder_gives_its_volumes_sorted_without_results(tmp_path):
    for name in ("b.nii", "a.nii.gz", "c.nrrd", "a_desc-superres.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in find_volumes(tmp_path)] == ["a.nii.gz", "b.nii", "c.nrrd"]


def test_nothing_to_find_is_refused(tmp_path):
    for source, words in ((tmp_path / "gone", "no such"), (tmp_path, "no volume"), (Path(__file__), "by its name")):
        with pytest.raises(InputError, match=words):
            find_volumes(source)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scan.nii", "scan_desc-superres.nii.gz"),
        ("a.b c.nii.gz", "a.b c_desc-superres.nii.gz"),
        ("sub-01_ses-2_T1w.nii.gz", "sub-01_ses-2_desc-superres_T1w.nii.gz"),
        ("sub-01.nrrd", "sub-01_desc-superres.nii.gz"),
    ],
)
def test_results_are_named_after_their_input(name, expected):
    assert result_name(Path(name)) == expected


def test_written_files_have_both_forms_and_leave_no_temporary_file(tmp_path):
    write_volume(tmp_path / "out.nii.gz", head(), np.diag([0.5, 0.5, 0.5, 1.0]), (0, 2))
    image = nib.load(tmp_path / "out.nii.gz")
    assert np.allclose(image.get_qform(), image.get_sform()) and image.get_data_dtype() == np.float32
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (2, 2)
    assert os.listdir(tmp_path) == ["out.nii.gz"]


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write here"):
        prepare_output(tmp_path / "file" / "folder")
    assert prepare_output(tmp_path / "new" / "folder").is_dir()


@pytest.mark.parametrize("size", [1, 5000, 2**16, 2**16 + 1, 200_000])
def test_parallel_compression_is_plain_gzip(size):
    content = np.random.default_rng(0).integers(0, 9, size, np.uint8).tobytes()
    packed = compress(content, chunk=2**16)
    assert gzip.decompress(packed) == content
    stream = zlib.decompressobj(wbits=31)  # one member: a reader that stops at its end has everything
    assert stream.decompress(packed) == content and stream.eof and not stream.unused_data


def test_itk_reads_what_is_written(tmp_path):
    write_volume(tmp_path / "out.nii.gz", head((90, 90, 90)), np.diag([-0.5, -0.5, 0.5, 1.0]), (1, 1))
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(), head((90, 90, 90)))
    assert image.GetSpacing() == pytest.approx((0.5, 0.5, 0.5))
