from pathlib import Path

import pytest
import torch
from data import SHARED, head

from bundle.io import read_volume
from bundle.modality import modality_by_histogram, modality_by_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w.nii.gz", "T1w"),
        ("sub-01_run-2_T2w.nii", "T2w"),
        ("openms_p01_T1W.nii.gz", "T1w"),
        ("brain-t2.nrrd", "T2w"),
        ("sub-01_FLAIR.nii.gz", "other"),
        ("scan.nii.gz", None),
        ("T10.nii", None),
    ],
)
def test_names_that_say_it(name, expected):
    assert modality_by_name(Path(name)) == expected


def test_bright_fluid_in_the_middle_is_t2():
    volume = torch.from_numpy(head((60, 60, 60)))[None]
    assert modality_by_histogram(volume, (3, 3, 3)) == "T1w"
    volume[:, 27:33, 22:30, 25:35] = 2500
    assert modality_by_histogram(volume, (3, 3, 3)) == "T2w"


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the project's real volumes")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t1/seg3d_t1_head_0p9mm", "T1w"),
        ("t1/stroke_t1_brain_1mm", "T1w"),
        ("t2/arc_m2208_t2_brain_1mm", "T2w"),
        ("clinical/openms_long_p01_s1_T2W", "T2w"),
    ],
)
def test_real_volumes_are_told_apart(name, expected):
    volume = read_volume(SHARED / "data" / f"{name}.nii.gz")
    assert modality_by_histogram(volume.as_tensor(), tuple(volume.pixdim.tolist())) == expected
