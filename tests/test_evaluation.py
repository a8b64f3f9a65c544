import csv
import json

import numpy as np
import pytest
import torch
from data import head, phantom_map, save

from bundle.cases import grids_of
from bundle.evaluation import (
    classical_methods,
    compare,
    main_group,
    make_case,
    make_cases,
    make_simulated_case,
    network_method,
    tune_back_projection,
    write_tables,
)
from bundle.networks.super_resolver import SuperResolver
from bundle.simulation.acquisition import Acquisition
from bundle.simulation.tissues import CLASSES, GROUPS


@pytest.fixture
def path(tmp_path):
    return save(tmp_path / "a_T1w.nii.gz", head((49, 44, 50)))


def test_cases_are_cropped_to_the_factors_degraded_and_repeatable(path):
    case, again = make_case(path, "A", (2, 2, 3)), make_case(path, "A", (2, 2, 3))
    assert case.reference.shape == (48, 44, 48) and case.low.shape == (1, 1, 24, 22, 16)
    assert torch.equal(case.low, again.low) and case.condition.tolist()[0][:3] == [0, 1, 0]
    assert not torch.equal(case.low, make_case(path, "A", (2, 2, 3), seed=1).low)


def test_halves_divide_a_grid_too(path):
    assert grids_of((50, 49, 48), (1.5, 2, 2.5)) == ([48, 48, 45], [32, 24, 18])
    case = make_case(path, "A", (1.5, 1.5, 1))
    assert all(n * f == m for n, f, m in zip(case.low.shape[2:], case.factors, case.reference.shape, strict=True))
    assert torch.allclose(2 ** case.condition[0, 3:].sort().values, torch.tensor([1.0, 1.5, 1.5]))


def test_the_noise_is_the_stated_share_of_the_range(path):
    sharp = torch.from_numpy(head((49, 44, 50)))[:48, :44, :50]
    clean = Acquisition()(sharp[None, None], (24, 22, 25))
    span = np.ptp(np.percentile(sharp, (0.1, 99.9)))
    for protocol, share in (("A", 0.01), ("B", 0.03)):
        case = make_case(path, protocol, (2, 2, 2))
        bright = clean > 300
        gain = float((case.low[bright] * clean[bright]).sum() / clean[bright].square().sum())
        noise = (case.low / gain - clean)[bright]
        assert float((noise - noise.mean()).std()) == pytest.approx(share * span, rel=0.1)


def test_a_network_that_adds_nothing_scores_like_cubic_and_projection_helps(path):
    methods = classical_methods()
    for project in (False, True):
        methods[f"net {project}"] = network_method(SuperResolver("small"), torch.device("cpu"), project, amp=False)
    rows = {r["method"]: r["psnr"] for r in compare([{"image": path}], methods, ["A"], [(2, 2, 2)])}
    assert rows["net False"] == pytest.approx(rows["cubic"], abs=0.01)
    assert rows["trilinear"] < rows["cubic"] < rows["IBP"] and rows["net True"] > rows["cubic"]


def test_the_network_sees_canonical_axes_whatever_those_of_the_file_are(tmp_path):
    volume = head((32, 40, 48))
    turned = np.diag([1.0, -1.0, 1.0, 1.0])[[2, 0, 1, 3]]  # axes of the file: anterior, inferior, right
    cases = [
        make_case(save(tmp_path / "a_T1w.nii.gz", volume.transpose(1, 2, 0)[:, ::-1], turned), "A", (2, 1, 3)),
        make_case(save(tmp_path / "b_T1w.nii.gz", volume), "A", (3, 2, 1)),
    ]
    assert cases[0].axes != cases[1].axes and torch.equal(cases[0].condition, cases[1].condition)
    assert torch.allclose(cases[0].interpolated, cases[1].interpolated, atol=0.15)  # but for the noise
    restored = network_method(SuperResolver("small"), torch.device("cpu"), amp=False)(cases[0])
    assert restored.shape[2:] == cases[0].reference.shape


def test_tables_are_written_as_csv_json_and_markdown(path, tmp_path):
    rows = compare([{"image": path}], classical_methods(), ["A", "C"], [(1, 1, 3)])
    text = write_tables(rows, tmp_path)
    assert len(rows) == 6 and text.count("\n") == 7
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == rows
    with open(tmp_path / "results.csv") as file:
        assert [float(r["psnr"]) for r in csv.DictReader(file)] == [r["psnr"] for r in rows]


def test_back_projection_is_tuned_to_the_noise(path):
    quiet, noisy = (tune_back_projection(path, p, (2, 2, 2)) for p in ("A", "B"))
    assert quiet[0] * quiet[1] >= noisy[0] * noisy[1]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    array, affine = phantom_map()
    return save(tmp_path_factory.mktemp("maps") / "map.nii.gz", array.astype(np.int16), affine)


@pytest.mark.parametrize("modality", ["T1w", "T2w"])
def test_a_label_map_stands_for_a_low_field_input_and_a_7t_truth(labels, modality):
    case = make_simulated_case(labels, modality, "A", (2, 2, 2))
    assert case.reference.shape == (88, 104, 92) and case.low.shape == (1, 1, 44, 52, 46)
    assert case.condition.tolist()[0][:3] == [1, modality == "T1w", modality == "T2w"]
    again = make_simulated_case(labels, modality, "A", (2, 2, 2))
    assert torch.equal(case.low, again.low) and torch.equal(case.reference, again.reference)


def test_every_label_map_draws_a_person_of_its_own(labels, tmp_path):
    other = tmp_path / "other.nii.gz"
    other.write_bytes(labels.read_bytes())
    cases = [make_simulated_case(path, "T1w", "A", (2, 2, 2)) for path in (labels, other)]
    assert not torch.allclose(cases[0].reference, cases[1].reference, atol=0.05)


def test_methods_without_a_network_are_fitted_to_the_7t_truth_before_they_are_compared(labels):
    item = {"image": str(labels), "kind": "label_map"}
    assert [c.modality for c in make_cases(item, ["A"], [(2, 2, 2)])] == ["T1w", "T2w"]
    cubic = classical_methods()["cubic"]
    methods = {"cubic": cubic, "cubic turned down": lambda case: 0.2 * cubic(case) + 3}
    rows = compare([item], methods, ["A"], [(2, 2, 2)])
    fitted, raw = rows[0], rows[1]
    assert fitted["psnr"] > 15 > raw["psnr"] and len(rows) == 4


def test_a_cube_of_fine_voxels_belongs_to_the_group_that_holds_most_of_it():
    fine = torch.zeros(4, 4, 4, dtype=torch.uint8)
    fine[:2, :2, :2] = CLASSES.index("WM")
    fine[0, 0, :2] = CLASSES.index("WM lesion")  # the same group
    fine[2:, :2, :2] = CLASSES.index("CSF")
    fine[2, :2, :2] = CLASSES.index("fat")
    fine[2, 0, 0] = CLASSES.index("CSF")
    names = list(GROUPS)
    found = main_group(fine)
    assert found.shape == (2, 2, 2)
    assert names[found[0, 0, 0]] == "WM" and names[found[1, 0, 0]] == "CSF" and names[found[1, 1, 1]] == "background"
