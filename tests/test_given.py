import json

import numpy as np
import pytest
import torch
from data import head, phantom_map, save

from bundle.cases import make_given_case
from bundle.errors import InputError
from bundle.evaluation import compare
from bundle.given import read_given, read_pair

SHAPE = (44, 52, 46)


@pytest.fixture
def folder(tmp_path):
    high = head(SHAPE)
    low = torch.nn.functional.avg_pool3d(torch.from_numpy(high)[None, None], 2)[0, 0].numpy()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 0.5
    save(tmp_path / "high_T1w.nii.gz", high)
    save(tmp_path / "low_T1w.nii.gz", low, affine)
    return tmp_path


def _list(folder, **item):
    path = folder / "list.json"
    path.write_text(json.dumps({"pairs": [item]}))
    return str(path)


def _pair(folder, **extras):
    return read_given(_list(folder, low="low_T1w.nii.gz", high="high_T1w.nii.gz", **extras), "pairs", str(folder))[0]


def test_a_pair_without_its_partner_is_refused(folder):
    with pytest.raises(InputError, match="a pair needs both 'low' and 'high'"):
        read_given(_list(folder, low="low_T1w.nii.gz"), "pairs", str(folder))
    with pytest.raises(InputError, match="gone.nii.gz: no such file, the 'high' of a pair"):
        read_given(_list(folder, low="low_T1w.nii.gz", high="gone.nii.gz"), "pairs", str(folder))


def test_unknown_contrasts_are_refused(folder):
    with pytest.raises(InputError, match="contrast '3T'.*allowed: input, 7T"):
        _pair(folder, contrast="3T")


def test_scans_of_another_field_of_view_are_refused(folder):
    item = _pair(folder)
    save(folder / "low_T1w.nii.gz", head((20, 26, 23)), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="20 x 26 x 23 voxels of 2 x 2 x 2 mm and 44 x 52 x 46 .* same field of view"):
        read_pair(item)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])  # right size, moved by two millimetres
    affine[:3, 3] = 2.5
    save(folder / "low_T1w.nii.gz", head((22, 26, 23)), affine)
    with pytest.raises(InputError, match="same field of view"):
        read_pair(item)


def test_a_low_scan_that_is_as_fine_is_refused(folder):
    save(folder / "low_T1w.nii.gz", head(SHAPE))
    with pytest.raises(InputError, match="nowhere fewer than the high one"):
        read_pair(_pair(folder))


def test_a_prediction_on_another_grid_is_refused(folder):
    save(folder / "p.nii.gz", head((40, 52, 46)))
    with pytest.raises(InputError, match="p.nii.gz: 40 x 52 x 46 voxels, but .* has 44 x 52 x 46"):
        read_pair(_pair(folder, prediction="p.nii.gz"))
    save(folder / "p.nii.gz", head(SHAPE), np.diag([1.2, 1.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="p.nii.gz: lies elsewhere .*1.2 x 1 x 1 and 1 x 1 x 1 mm"):
        read_pair(_pair(folder, prediction="p.nii.gz"))


def test_tissue_maps_that_say_nothing_are_refused(folder):
    save(folder / "t.nii.gz", np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match="the tissue map is empty"):
        read_pair(_pair(folder, tissue="t.nii.gz"))
    save(folder / "t.nii.gz", np.full(SHAPE, 999, np.int16))
    with pytest.raises(InputError, match=r"labels \[999\] are unknown"):
        read_pair(_pair(folder, tissue="t.nii.gz"))


def test_a_reference_without_a_head_is_refused(folder):
    spike = np.zeros(SHAPE, np.float32)
    save(folder / "high_T1w.nii.gz", spike)
    with pytest.raises(InputError, match="high_T1w.nii.gz: the mask of the head is empty"):
        make_given_case(_pair(folder))
    spike[20, 20, 20] = 1e6
    save(folder / "high_T1w.nii.gz", spike)
    with pytest.raises(InputError, match="high_T1w.nii.gz: all voxels of the head have the same value"):
        make_given_case(_pair(folder))


def test_a_reference_as_prediction_scores_perfectly(folder):
    item = _pair(folder, prediction="high_T1w.nii.gz")
    case = make_given_case(item)
    assert case.factors == (2, 2, 2) and case.protocol == "given" and case.modality == "T1w"
    row = compare([item], {}, [], [])[0]
    assert row["method"] == "prediction" and row["psnr"] == float("inf") and row["ssim"] == 1 and row["gmsd"] == 0
    assert "seconds" not in row


def test_a_pair_is_on_one_scale_and_brings_its_tissue(folder):
    labels = phantom_map()[0][::2, ::2, ::2].astype(np.int16)
    assert labels.shape == SHAPE
    save(folder / "t.nii.gz", labels)
    case = make_given_case(_pair(folder, tissue="t.nii.gz", modality="T2w", contrast="7T"))
    mean = torch.nn.functional.avg_pool3d(case.reference[None, None], 2)
    assert torch.allclose(mean, case.low, atol=1e-5)
    assert case.tissue.dtype == torch.uint8 and int(case.tissue.max()) <= 10 and case.modality == "T2w"
    assert case.condition.tolist()[0] == [1, 0, 1, 1, 1, 1]
