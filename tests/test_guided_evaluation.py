import json

import numpy as np
from data import head, phantom_map, save, small_network

from bundle.guided_evaluation import evaluate_guidance, make_guided_case, rows_of


def test_a_scan_with_both_effects_is_shaded_and_bent_and_its_truth_is_not(tmp_path):
    path = save(tmp_path / "a_T1w.nii.gz", head((48, 48, 48)))
    guided = make_guided_case({"image": str(path)}, "A", (2, 2, 2))
    case, field = guided.case, guided.true_log_bias((48, 48, 48))
    assert case.reference.shape == (48, 48, 48) and case.low.shape[2:] == (24, 24, 24)
    assert float(field.std()) > 0.05
    again = make_guided_case({"image": str(path)}, "A", (2, 2, 2)).case
    assert np.array_equal(case.low, again.low)


def test_every_network_gets_its_rows(tmp_path):
    path = save(tmp_path / "a_T1w.nii.gz", head((40, 40, 40)))
    networks = {"told": small_network(guided=True), "plain": small_network()}
    table = evaluate_guidance([{"image": str(path)}], networks, "A", tmp_path)
    rows = {row["method"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert {"cubic, as it is", "cubic, corrected first", "plain, as it is", "plain, corrected first"} <= rows
    assert {f"told, {view}" for view in ("as it is", "N4 and coefficients", "true maps")} <= rows
    assert len(rows) == 7
    assert "| plain, corrected first |" in table


def test_a_label_map_stands_for_a_scan_with_both_effects_too(tmp_path):
    labels, affine = phantom_map()
    path = save(tmp_path / "map.nii.gz", labels.astype(np.int16), affine)
    guided = make_guided_case({"image": str(path), "kind": "label_map"}, "A", (2, 2, 2))
    case = guided.case
    assert case.contrast == "7T" and case.reference.ndim == 3
    assert case.low.shape[2:] == tuple(n // 2 for n in case.reference.shape)
    assert len(rows_of(guided, {"told": small_network(guided=True)})) == 5
