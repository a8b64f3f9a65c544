import json

import pytest

from bundle.data import preflight, read_datalist, weighted_sampler
from bundle.errors import InputError


def _list(tmp_path, **item):
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": [{"image": "a/x.nii", **item}]}))
    return str(path)


def test_lists_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such datalist"):
        read_datalist("gone.json", "training", ".")
    with pytest.raises(InputError, match="no section 'test'"):
        read_datalist(_list(tmp_path), "test", ".")
    with pytest.raises(InputError, match="kind 'blurred'"):
        read_datalist(_list(tmp_path, kind="blurred"), "training", ".")
    (tmp_path / "list.json").write_text('{"training": [{"file": 1}]}')
    with pytest.raises(InputError, match="every item needs an 'image'"):
        read_datalist(str(tmp_path / "list.json"), "training", ".")
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_datalist(str(tmp_path / "list.json"), "training", ".")


def test_only_the_image_is_a_path(tmp_path):
    (tmp_path / "sharp").mkdir()
    items = read_datalist(_list(tmp_path, kind="sharp", weight=2), "training", str(tmp_path))
    assert items == [{"image": str(tmp_path / "a" / "x.nii"), "kind": "sharp", "weight": 2}]


def test_a_training_that_cannot_start_is_refused_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no section 'validation'"):
        preflight(_list(tmp_path), str(tmp_path))
    content = {"training": [{"image": "x.nii"}], "validation": [{"image": "x.nii", "kind": "label_map"}]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="x.nii: no such file; set --dataset_dir"):
        preflight(str(tmp_path / "list.json"), str(tmp_path))
    (tmp_path / "x.nii").touch()
    with pytest.raises(SystemExit, match="only sharp volumes can be validated on"):
        preflight(str(tmp_path / "list.json"), str(tmp_path))
    content["validation"][0]["kind"] = "sharp"
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="gone.pt: no such file"):
        preflight(str(tmp_path / "list.json"), str(tmp_path), [None, str(tmp_path / "gone.pt")])
    preflight(str(tmp_path / "list.json"), str(tmp_path))


def test_weights_decide_how_often_an_item_is_drawn():
    drawn = list(weighted_sampler([{"weight": 3}, {}, {"weight": 0}], 4000))
    assert drawn.count(2) == 0 and 2.6 < drawn.count(0) / drawn.count(1) < 3.5


def test_the_share_of_label_maps_can_be_set_whatever_the_weights():
    items = [{"weight": 3}, {"kind": "label_map"}, {"kind": "label_map", "weight": 3}]
    drawn = list(weighted_sampler(items, 4000, label_maps=0.6))
    assert 0.36 < drawn.count(0) / 4000 < 0.44 and 2.5 < drawn.count(2) / drawn.count(1) < 3.6
    assert set(weighted_sampler(items[1:], 100, label_maps=0.6)) == {0, 1}  # nothing else to draw


def test_sections_that_a_training_needs_beside_its_own_are_looked_at_too(tmp_path):
    (tmp_path / "list.json").write_text(
        json.dumps({"training": [], "validation": [], "scans": [{"image": "a.nii.gz"}]})
    )
    preflight(str(tmp_path / "list.json"), str(tmp_path))
    with pytest.raises(SystemExit, match="no section 'more'"):
        preflight(str(tmp_path / "list.json"), str(tmp_path), sections=["more"])
    with pytest.raises(SystemExit, match=r"a.nii.gz: no such file; set --dataset_dir"):
        preflight(str(tmp_path / "list.json"), str(tmp_path), sections=["scans"])
