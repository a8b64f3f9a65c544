import numpy as np
import pytest
import torch
from data import head, save

from bundle.augmentation import PrepareSourced, RandHeadCropd
from bundle.errors import InputError
from bundle.networks.context import REACH, VIEW
from bundle.unpaired import PrepareScand, Unpaired, WithHeadd


def _chain(*steps):
    def run(item):
        for step in steps:
            item = step(item)
        return item

    return run


def _sets(tmp_path):
    path = save(tmp_path / "a_T1w.nii.gz", head((48, 48, 20)), np.diag([1.0, 1.0, 3.0, 1.0]))
    scan = {"image": str(path), "modality": "T1w"}
    sharp = {"image": torch.from_numpy(head((48, 48, 48)))[None].float(), "kind": "sharp", "modality": "T1w"}
    return scan, sharp


def test_a_scan_comes_on_its_target_grid_with_its_factors(tmp_path):
    item = PrepareScand("image")(_sets(tmp_path)[0])
    assert item["image"].shape == (1, 48, 48, 60) and item["image"].dtype == torch.float16
    assert item["condition"][:2].tolist() == [0, 1]
    assert torch.allclose(2 ** item["condition"][3:], torch.tensor([1.0, 1, 3]))
    assert item["spacing"] == pytest.approx((1, 1, 1))


def test_every_crop_of_a_scan_comes_with_one_of_a_sharp_volume(tmp_path):
    scan, sharp = _sets(tmp_path)
    crop = RandHeadCropd("image", {"sharp": 24})
    data = Unpaired(
        [scan],
        [sharp, {**sharp, "kind": "label_map"}],
        _chain(PrepareScand("image"), crop, WithHeadd("image")),
        _chain(PrepareSourced("image"), crop),
        5,
    )
    example = data[0]
    assert len(data) == 5 and example["image"].shape == example["real"].shape == (1, 24, 24, 24)
    assert example["cells"].shape == (1, *[3 + 2 * REACH] * 3) and example["context"].shape == (1, *[VIEW] * 3)
    assert all(value.dtype == torch.float32 for value in example.values())


def test_a_modality_without_sharp_volumes_and_no_scans_are_refused(tmp_path):
    scan, sharp = _sets(tmp_path)
    with pytest.raises(InputError, match="no sharp volume of modality T2w"):
        Unpaired([{**scan, "modality": "T2w"}], [sharp], _chain(), _chain(), 1)
    with pytest.raises(InputError, match="section 'adaptation'"):
        Unpaired([], [sharp], _chain(), _chain(), 1)
