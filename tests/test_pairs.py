import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.errors import InputError
from bundle.intensity import match_linearly
from bundle.networks.context import CELL, REACH, coarse_view, cut_surround, surround
from bundle.pairs import RandPaird, preflight, read_pairs, spacing_factors


def _list(tmp_path, **sections):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(sections))
    return str(path)


def _pair(subject="a", **more):
    return {"low": f"{subject}_low.nii.gz", "high": f"{subject}_high.nii.gz", "subject": subject, **more}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": [_pair("a")], "validation": [_pair("b"), _pair("a")]},
            "subject a is in 'training' and in 'valid",
        ),
        ({"training": [{"low": "x", "high": "y"}]}, "every pair needs low, high, subject"),
        ({"training": [_pair(contrast="9T")]}, "contrast '9T'"),
        ({"training": [_pair(modality="CT")]}, "modality 'CT'"),
        ({"test": []}, "no section 'training'"),
    ],
)
def test_bad_lists_are_refused(tmp_path, sections, message):
    with pytest.raises(InputError, match=message):
        read_pairs(_list(tmp_path, **sections), "training", ".")


def test_missing_lists_and_files_stop_the_run_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no such datalist"):
        preflight(str(tmp_path / "none.json"), ".")
    with pytest.raises(SystemExit, match="section 'training' is empty"):
        preflight(_list(tmp_path, training=[], validation=[_pair("b")]), ".")
    path = _list(tmp_path, training=[_pair("a")], validation=[_pair("b")])
    with pytest.raises(SystemExit, match="a_low.nii.gz: no such file; set --dataset_dir"):
        preflight(path, str(tmp_path))


def test_items_have_whole_paths_and_defaults(tmp_path):
    path = _list(tmp_path, training=[_pair("a"), _pair("a", contrast="input", modality="T2w", weight=2)])
    first, second = read_pairs(path, "training", "/data")
    assert first["low"] == "/data/a_low.nii.gz" and (first["contrast"], first["modality"]) == ("7T", "other")
    assert (second["contrast"], second["modality"], second["weight"]) == ("input", "T2w", 2)


def test_factors_follow_the_axes_of_the_high_scan():
    low, high = np.diag([2.0, 1.0, 3.0, 1.0]), np.zeros((4, 4))
    high[0, 2], high[1, 0], high[2, 1], high[3, 3] = -0.5, 0.5, 1.0, 1.0  # axes in another order
    assert spacing_factors(low, high) == pytest.approx([2, 3, 4])
    assert spacing_factors(np.diag([0.4, 1, 1, 1]), np.eye(4)) == pytest.approx([1, 1, 1])  # never below one


def test_intensities_are_matched_by_a_line():
    reference = torch.rand(20, 20, 20)
    matched = match_linearly(40 * reference - 7, reference, torch.ones(20, 20, 20, dtype=torch.bool))
    assert torch.allclose(matched, reference, atol=1e-4)


def test_crops_turn_volumes_and_factors_together():
    low = torch.zeros(30, 32, 34)
    low[:, 16:] = 1.0  # changes along the second axis only
    item = {
        "pair": torch.stack([low, 2 * low]).half(),
        "factors": [1.0, 4.0, 2.0],
        "head": low[None, ::2, ::2, ::2],
        "contrast": "7T",
        "modality": "T1w",
    }
    seen = set()
    for seed in range(12):
        out = RandPaird(28).set_random_state(seed)(item)
        assert out["image"].shape == out["label"].shape == (1, 28, 28, 28)
        assert torch.equal(out["label"], 2 * out["image"])
        factors = (2 ** out["condition"][3:]).tolist()
        changing = [float(out["image"][0].diff(dim=a).abs().sum()) > 0 for a in range(3)]
        assert factors[changing.index(True)] == pytest.approx(4) and sum(changing) == 1
        seen.add(changing.index(True))
    assert seen == {0, 1, 2}
    with pytest.raises(ValueError, match="crops of 31 do not fit"):
        RandPaird(31)({**item, "high": "x"})
    still = RandPaird(20, random=False)(item)
    assert torch.equal(still["image"][0], low[5:25, 6:26, 7:27])


@pytest.mark.parametrize("random", [False, True])
def test_the_surround_of_a_crop_is_that_of_its_place_and_turns_with_it(random):
    coarse = torch.rand(1, 1, 8, 8, 8)
    low = F.interpolate(coarse, (64, 64, 64), mode="trilinear")[0, 0]
    item = {"pair": torch.stack([low, low]).half(), "factors": [2.0] * 3, "contrast": "7T", "modality": "T1w"}
    item["head"] = coarse_view(low[None, None])[0]
    for seed in range(4):
        out = RandPaird(32, random=random).set_random_state(seed)(item)
        if not random:
            expected = cut_surround(surround(low[None, None]), (slice(16, 48),) * 3)[0]
            assert torch.allclose(out["cells"], expected, atol=2e-3)
        own = F.avg_pool3d(out["image"][None], CELL)[0, 0]
        middle = out["cells"][0, REACH:-REACH, REACH:-REACH, REACH:-REACH]
        assert float((middle - own).abs().mean()) < 0.2 * float((middle.flip(0) - own).abs().mean())
