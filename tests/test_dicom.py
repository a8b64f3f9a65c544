import os
import re
from pathlib import Path

import numpy as np
import pytest
from data import SHARED, head
from dicom_data import CANARY, affine_of, write_classic, write_multiframe
from scipy.spatial.transform import Rotation

from bundle.dicom import choose_series, find_series
from bundle.errors import InputError
from bundle.io import read_volume

VOLUME = head((24, 28, 18)).astype(np.uint16)
TURN = Rotation.from_euler("xyz", [12, -8, 31], degrees=True).as_matrix()


def _only(folder):
    (series,) = find_series(Path(folder))
    return series


def _refused(folder):
    with pytest.raises(InputError) as error:
        read_volume(_only(folder).files)
    message = str(error.value)
    assert CANARY not in message and "\n" not in message and str(folder) in message
    return message


@pytest.mark.parametrize("turn", [np.eye(3), TURN, TURN @ [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])
def test_a_classic_series_is_the_volume_that_was_sliced(tmp_path, turn):
    affine = affine_of(turn=turn)
    volume = read_volume(_only(write_classic(tmp_path / "a", VOLUME, affine)).files)
    # along the normal (row x column), whatever the order of the files
    flipped = np.linalg.det(affine[:3, :3]) < 0
    expected = VOLUME[:, :, ::-1] if flipped else VOLUME
    assert np.array_equal(volume.numpy()[0], expected)
    corner = affine @ [0, 0, VOLUME.shape[2] - 1 if flipped else 0, 1]
    assert np.allclose(volume.affine.numpy()[:, 3], corner, atol=1e-6)
    assert np.allclose(np.abs(volume.affine.numpy()[:3, :3]), np.abs(affine[:3, :3]), atol=1e-6)


@pytest.mark.parametrize("order", [None, [*range(0, 18, 2), *range(1, 18, 2)], list(range(17, -1, -1))])
def test_a_multi_frame_file_is_read_whatever_the_order_of_its_frames(tmp_path, order):
    affine = affine_of(turn=TURN)
    volume = read_volume(_only(write_multiframe(tmp_path / "a" / "b.dcm", VOLUME, affine, order=order).parent).files)
    assert np.array_equal(volume.numpy()[0], VOLUME) and np.allclose(volume.affine, affine, atol=1e-6)


def test_the_acquisition_goes_on_and_the_person_does_not(tmp_path):
    volume = read_volume(_only(write_classic(tmp_path / "a", VOLUME)).files)
    assert volume.meta["acquisition"] == {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "DIS3D"],
        "MagneticFieldStrength": 1.5,
        "Manufacturer": "Maker",
        "modality": "T1w",
    }
    assert CANARY not in str({**volume.meta})


def test_rescale_slopes_of_single_images_count(tmp_path):
    def change(image, k):
        image.RescaleSlope, image.RescaleIntercept = str(0.5 + k), "-3"

    volume = read_volume(_only(write_classic(tmp_path / "a", VOLUME, change=change)).files)
    expected = VOLUME * (0.5 + np.arange(18)) - 3
    assert np.allclose(volume.numpy()[0], expected, rtol=1e-5)


def _turn_one(image, k):
    if k == 4:
        image.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]


def _tilt(image, k):
    x, y, z = (float(v) for v in image.ImagePositionPatient)
    image.ImagePositionPatient = [f"{x:.6g}", f"{y + 0.3 * k:.6g}", f"{z:.6g}"]


def _same_place(image, k):
    image.ImagePositionPatient = ["0", "0", str(k // 2)]


def _no_position(image, k):
    if k == 3:
        del image.ImagePositionPatient


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"skip": [7]}, r"1 image is missing between images 7 and 9 \(a gap of 4 mm where 2 mm is usual\)"),
        ({"skip": [3, 12]}, "2 images are missing between images 3 and 5 .* and in 1 other place"),
        ({"shift": {5: 0.5}}, "uneven gaps between images of 1.5 to 2.5 mm"),
        ({"change": _turn_one}, "images in 2 orientations"),
        ({"change": _tilt}, "shifted against each other by up to 5.1 pixels"),
        ({"change": _same_place}, "18 images at 9 positions"),
        ({"change": _no_position}, "damaged|without position"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "the magnitude image is needed"),
        ({"Modality": "CT"}, "DICOM modality CT; only MR"),
        ({"SamplesPerPixel": 3}, "a colour image"),
        ({"skip": range(9, 18)}, "a series of 9 images; at least 16"),
        ({"change": lambda image, k: setattr(image, "PixelSpacing", ["1", "0"])}, "pixel spacing \\[0.0, 1.0\\] mm"),
        (
            {"change": lambda image, k: setattr(image, "PixelSpacing", ["1", "2"] if k == 2 else ["1", "1"])},
            "different sizes",
        ),
    ],
)
def test_what_is_no_whole_stack_is_refused_with_what_is_missing(tmp_path, how, words):
    message = _refused(write_classic(tmp_path / "a", VOLUME, **how))
    assert re.search(words, message), message


def test_gaps_that_vary_a_little_are_read_with_a_warning(tmp_path):
    volume = read_volume(_only(write_classic(tmp_path / "a", VOLUME, shift={5: 0.05})).files)
    assert volume.meta["warnings"] == ["slightly uneven gaps between images of 1.95 to 2.05 mm; their mean was used"]
    assert np.allclose(volume.affine[2, 2], 2)


def test_frames_that_are_scaled_differently_are_refused(tmp_path):
    path = write_multiframe(tmp_path / "a" / "b.dcm", VOLUME, slopes=[1] * 17 + [2])
    assert "different rescale slopes" in _refused(path.parent)


def test_echoes_of_one_series_become_volumes_of_their_own(tmp_path):
    uid = "1.2.3.4"
    for echo in (10, 90):
        write_classic(tmp_path / f"{echo}", VOLUME + echo, uid=uid, EchoTime=str(echo))
        for path in (tmp_path / f"{echo}").iterdir():
            os.rename(path, tmp_path / f"{echo}_{path.name}")
    found = find_series(tmp_path)
    assert [(s.number, s.images) for s in found] == [("3a", 18), ("3b", 18)]
    assert [float(read_volume(s.files).numpy().min()) - VOLUME.min() for s in found] == [10, 90]


def test_series_are_chosen_by_uid_number_or_description(tmp_path):
    write_classic(tmp_path, VOLUME, number=2, SeriesDescription="t2_tse")
    write_classic(tmp_path, VOLUME, number=7, SeriesDescription="t1_mprage sag", uid="1.2.3.7")
    (tmp_path / "report.dcm").write_bytes(b"\0" * 128 + b"DICM")
    found = find_series(tmp_path)
    for wanted, numbers in (
        ("all", ["2", "7"]),
        ("7", ["7"]),
        ("1.2.3.7", ["7"]),
        ("T2_TSE", ["2"]),
        ("mprage", ["7"]),
    ):
        assert [s.number for s in choose_series(found, wanted, tmp_path)] == numbers
    with pytest.raises(InputError, match=r"there are 2 \(18 images of 24 x 28\), 7 \(18"):
        choose_series(found, "flair", tmp_path)


def test_subfolders_are_searched_and_circles_of_links_are_not_followed(tmp_path):
    write_classic(tmp_path / "x" / "y", VOLUME)
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert _only(tmp_path).images == 18


def test_a_damaged_file_is_missed_by_its_series(tmp_path):
    folder = write_classic(tmp_path / "a", VOLUME)
    path = sorted(folder.iterdir())[9]
    path.write_bytes(path.read_bytes()[:140])
    assert "1 image is missing" in _refused(folder)


def test_truncated_pixels_are_refused(tmp_path):
    folder = write_classic(tmp_path / "a", VOLUME)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-600])
    assert "cannot be read" in _refused(folder)


@pytest.mark.skipif(not SHARED.joinpath("data/dicom").is_dir(), reason="real DICOM data is not here")
def test_real_series_are_read_as_their_headers_say():
    found = find_series(SHARED / "data" / "dicom")
    volumes = {s.number: read_volume(s.files) for s in found}
    assert {n: tuple(v.shape[1:]) for n, v in volumes.items()} == {
        "2": (256, 256, 20),
        "5": (128, 128, 96),
        "6": (128, 128, 96),
    }
    assert volumes["2"].meta["warnings"] and volumes["2"].meta["acquisition"]["MagneticFieldStrength"] == 1.5
    assert np.allclose(volumes["6"].affine[:3, :3], [[0, 0, 2], [-2, 0, 0], [0, -2, 0]])
