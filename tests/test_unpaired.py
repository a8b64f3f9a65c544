import numpy as np
import pytest
import torch
from data import head, save

from bundle.augmentation import PrepareSourced, RandAcquired, RandHeadCropd
from bundle.errors import InputError
from bundle.networks.context import REACH, VIEW
from bundle.unpaired import SHOWN, PrepareScand, Unpaired, WithHeadd, sharp_volumes


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


def test_every_crop_of_a_scan_comes_with_one_of_a_sharp_volume_and_with_a_pair(tmp_path):
    scan, sharp = _sets(tmp_path)
    drawn = []
    crop = RandHeadCropd("image", {"sharp": 24})
    data = Unpaired(
        [scan],
        [{**sharp, "modality": "T2w"}, {**sharp, "weight": 0}, {**sharp, "weight": 2}],
        _chain(PrepareScand("image"), crop, WithHeadd("image")),
        _chain(lambda item: drawn.append(item) or item, PrepareSourced("image"), crop),
        _chain(PrepareSourced("image"), RandAcquired("image", size=16, turn=False, fixed=2.0)),
        5,
    )
    example = data[0]
    assert len(data) == 5 and example["image"].shape == example["real"].shape == (1, 24, 24, 24)
    assert example["cells"].shape == (1, *[3 + 2 * REACH] * 3) and example["context"].shape == (1, *[VIEW] * 3)
    assert set(example["pair"]) == {*SHOWN, "label"} and example["pair"]["image"].shape == (1, 16, 16, 16)
    assert example["pair"]["condition"][3:].tolist() == [1, 1, 1]
    assert all(v.dtype == torch.float32 for v in [*example["pair"].values(), *(example[k] for k in (*SHOWN, "real"))])
    assert [len(data[i]) for i in range(5)] and all(item.get("weight") == 2 for item in drawn)


def test_label_maps_and_thick_slices_are_not_sharp(tmp_path):
    volume = head((48, 48, 20))
    paths = [save(tmp_path / f"{s}.nii.gz", volume, np.diag([1.0, 1.0, s, 1.0])) for s in (1.0, 1.4, 3.0)]
    items = [{"image": str(path), "kind": "sharp"} for path in paths]
    assert sharp_volumes([*items, {"image": str(paths[0]), "kind": "label_map"}]) == items[:2]


def test_a_modality_without_sharp_volumes_and_no_scans_are_refused(tmp_path):
    scan, sharp = _sets(tmp_path)
    with pytest.raises(InputError, match="no sharp volume of modality T2w"):
        Unpaired([{**scan, "modality": "T2w"}], [sharp], _chain(), _chain(), _chain(), 1)
    with pytest.raises(InputError, match="section 'adaptation'"):
        Unpaired([], [sharp], _chain(), _chain(), _chain(), 1)
