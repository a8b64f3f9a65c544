import json

import numpy as np
import torch
from data import head, phantom_map, save, small_network

from bundle.evaluation import make_simulated_case
from bundle.networks.experts import EXPERTS
from bundle.region_evaluation import evaluate_regions, make_region_cases, quality
from bundle.regions import regions


def test_regional_quality_is_of_the_region_alone(tmp_path):
    path = save(tmp_path / "labels.nii.gz", *phantom_map())
    (case, masks), *_ = make_region_cases({"image": path, "kind": "label_map"}, ["T1w"])
    assert torch.equal(masks, regions(case.tissue[None, None])[0]) and masks.flatten(1).any(1).all()
    image = case.reference + 0.1 * case.span
    image[masks[1]] = case.reference[masks[1]] + 0.01 * case.span
    found = quality(case, masks, image)
    assert np.isclose(found["cortex"], 40, atol=0.01) and np.isclose(found["junction"], 20, atol=0.01)
    assert 20 < found["head"] < 25


def test_real_volumes_take_their_regions_from_the_extractor(tmp_path):
    path = save(tmp_path / "x_T1w.nii.gz", head((32, 32, 32)))
    ((case, masks),) = make_region_cases({"image": path}, ["T2w"])
    assert case.contrast == "input" and case.modality == "T1w" and masks.shape == (3, *case.reference.shape)


def test_tables_hold_every_method_and_what_the_experts_do(tmp_path):
    path = save(tmp_path / "labels.nii.gz", *phantom_map())
    networks = {"single": small_network(), "mixture": small_network(experts=True)}
    items = [{"image": path, "kind": "label_map"}]
    text = evaluate_regions(items, networks, ["T1w"], 0.4, tmp_path)
    content = json.loads((tmp_path / "regions.json").read_text())
    assert [row["method"] for row in content["rows"]] == ["cubic", "single", "mixture, sparse", "mixture"]
    assert all(np.isfinite(row[name]) for row in content["rows"] for name in ("head", *EXPERTS))
    (experts,) = content["experts"]
    assert np.allclose(np.sum(experts["gate"], axis=1), 1, atol=0.01)
    case = make_simulated_case(path, "T1w", "A", (2, 2, 2))
    assert f"mixture, {case.name} T1w" in text and text.count("| junction |") >= 2
