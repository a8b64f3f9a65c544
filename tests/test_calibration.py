import json

import numpy as np
import pytest
import torch
from data import head, save, small_network

from bundle.calibration import (
    Judged,
    calibrate,
    conformal_scale,
    coverage,
    judge_all,
    local_deviation,
    rank_correlation,
    report,
)
from bundle.evaluation import make_case


def _judged(tmp_path, scale, seed=0):
    """Normal errors whose standard deviation is ``scale`` times the uncertainty."""
    random = np.random.RandomState(seed)
    case = make_case(save(tmp_path / "a_T1w.nii.gz", head((24, 24, 24))), "A", (2, 2, 2))
    uncertainty = random.uniform(0.01, 0.1, 20_000)
    error = np.abs(random.normal(0, scale * uncertainty))
    return Judged(case, error, uncertainty, random.rand(20_000))


def test_ranks_correlate_whatever_the_scale():
    a = np.random.RandomState(0).rand(1000)
    assert rank_correlation(a, np.exp(5 * a)) == pytest.approx(1) and rank_correlation(a, -(a**3)) == pytest.approx(-1)
    assert abs(rank_correlation(a, np.random.RandomState(1).rand(1000))) < 0.1


def test_calibration_finds_the_scale_of_normal_errors_and_then_covers_them(tmp_path):
    tuning, other = _judged(tmp_path, 2.5), _judged(tmp_path, 2.5, seed=1)
    assert conformal_scale(tuning.error, tuning.uncertainty) == pytest.approx(2.5, rel=0.03)
    network = small_network(uncertainty=True)
    factors = calibrate(network, [tuning], samples=8)
    assert factors["input T1w"] == pytest.approx(2.5, rel=0.03) and "7T T1w" not in factors
    assert network.spread_scale[0].tolist() == pytest.approx([factors["input T1w"]] * 3)  # others take all there is
    assert network.spread_scale[1].tolist() == [1, 1, 1]
    assert calibrate(network, [tuning], samples=1) == factors
    assert torch.equal(network.scale_head.factor, network.spread_scale)
    scaled = other.uncertainty * factors["input T1w"]
    assert coverage(other.error, scaled) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], abs=0.015)


def test_the_local_deviation_is_high_at_edges_only():
    volume = torch.zeros(20, 20, 20)
    volume[10:] = 1
    deviation = local_deviation(volume)
    assert float(deviation[10, 10, 10]) == pytest.approx(0.5, abs=0.05) and float(deviation[2, 10, 10]) < 0.05


@pytest.mark.parametrize("samples", [1, 2])
def test_volumes_are_judged_and_reported(samples, tmp_path):
    pytest.importorskip("matplotlib")
    path = save(tmp_path / "a_T1w.nii.gz", head((32, 32, 32)))
    judged = judge_all(small_network(uncertainty=True), [{"image": str(path)}], torch.device("cpu"), samples, (2, 2, 2))
    rows = report(judged, tmp_path)
    assert rows == json.loads((tmp_path / "uncertainty.json").read_text())["rows"]
    assert len(rows) == 1 and (tmp_path / "reliability.png").stat().st_size > 5000
    assert all(0 <= share <= 1 for share in rows[0]["coverage"].values()) and -1 <= rows[0]["spearman"] <= 1
