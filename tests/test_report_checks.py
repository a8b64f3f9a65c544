import pytest
import torch
from report_data import make_item

from bundle.report.case import make_case
from bundle.report.checks import consistency, range_warnings, trained_range


def _case(contrast="input", **choices):
    item, pred, sidecar = make_item("a.nii.gz", contrast, **choices)
    return make_case(item, pred), sidecar


def test_a_result_that_explains_its_input_differs_from_it_by_the_noise():
    case, _ = _case(noise=20.0)
    case = case._replace(low=case.operator(case.high) + 0.03 * torch.randn(case.low.shape))
    rms, noise, far = consistency(case)
    assert float(rms.value.split()[0]) == pytest.approx(float(noise.value.split()[0]), rel=0.1)
    assert far.value in ("0.2 %", "0.3 %", "0.4 %")


def test_a_result_that_does_not_shows_it():
    case, _ = _case()
    shifted = case._replace(high=case.high.roll(6, 0))
    (before, _, few), (after, _, many) = consistency(case), consistency(shifted)
    assert float(after.value.split()[0]) > 5 * float(before.value.split()[0])
    assert float(many.value.split()[0]) > float(few.value.split()[0]) + 20


def test_another_contrast_is_judged_by_its_edges_alone():
    case, _ = _case("7T")
    edges, correlation = consistency(case._replace(high=1 - case.high))
    assert edges.good is True and float(edges.value) > 0.95
    assert float(correlation.value) < 0 and correlation.good is None
    spoilt, _ = consistency(case._replace(high=torch.rand(case.high.shape)))
    assert spoilt.good is False


def test_an_input_outside_of_the_training_range_is_marked():
    case, sidecar = _case()
    assert range_warnings(trained_range(case, sidecar)) == []
    case = case._replace(low=case.low + 0.2 * torch.randn(case.low.shape))
    rows = trained_range(case, sidecar | {"Factors": [6.0, 6.0, 1.0], "Modality": "other"})
    assert [row.good for row in rows] == [False, False, False]
    assert "6 x 6 x 1" in rows[0].value
    assert ["other" in range_warnings(rows)[0], "bright tissue" in range_warnings(rows)[1]] == [True, True]


def test_a_volume_without_a_head_is_said_to_be_none():
    case, _ = _case()
    (row,) = consistency(case._replace(mask=torch.zeros_like(case.mask)))
    assert row.good is False and "No head" in row.meaning
