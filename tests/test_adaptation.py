import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data import head, save, small_network

from bundle.adaptation import (
    FREQUENCIES,
    AdaptationGuard,
    Look,
    Scan,
    SharpLooks,
    compare_adaptation,
    looks_of,
    spectrum,
)
from bundle.consistency import default_operator
from bundle.geometry import blur
from bundle.inferer import SuperResolutionInferer


def _volume(seed=0, n=100):
    generator = torch.Generator().manual_seed(seed)
    texture = blur(torch.randn(n, n, n, generator=generator), 2.0)
    return torch.from_numpy(head((n, n, n))) * (1 + texture)


def _items(tmp_path):
    save(tmp_path / "sharp_T1w.nii.gz", _volume().numpy())
    low = blur(_volume(1), 3.0)[:, :, 1::3].numpy()
    save(tmp_path / "scan_T1w.nii.gz", low, np.diag([1.0, 1.0, 3.0, 1.0]))
    return [{"image": str(tmp_path / f"{name}_T1w.nii.gz"), "modality": "T1w"} for name in ("scan", "sharp")]


def test_the_spectrum_of_white_noise_is_flat_and_does_not_depend_on_the_sampling():
    torch.manual_seed(0)
    fine = 1 + torch.randn(64, 64, 64)
    levels = spectrum(fine, (1.0, 1.0, 1.0))
    assert levels == pytest.approx(np.zeros(len(FREQUENCIES)), abs=0.1)  # variance 1 per mm^3
    coarse = spectrum(1 + torch.randn(64, 64, 64), (2.0, 2.0, 2.0))
    seen = np.isfinite(coarse)
    assert seen.tolist() == (FREQUENCIES <= 0.25).tolist()
    assert coarse[seen] == pytest.approx(np.log10(8) * np.ones(seen.sum()), abs=0.1)


def test_blurred_volumes_are_further_from_sharp_ones_in_their_spectrum(tmp_path):
    _, sharp = _items(tmp_path)
    looks = SharpLooks({"sharp": Look.read(sharp["image"])})
    scale = torch.quantile(_volume(1)[::4, ::4, ::4], 0.9)
    other, blurred = (v / scale for v in (_volume(1), blur(_volume(1), 4.0)))
    near, far = (looks.distance(Look.at(v, (1.0, 1.0, 1.0))) for v in (other, blurred))
    assert 5 * near["spectrum"] < 0.2 < far["spectrum"]
    assert near["histogram"] < 0.02 < far["histogram"] + 0.02


def _engine():
    said, ended = [], []
    logger = SimpleNamespace(info=said.append)
    return SimpleNamespace(
        logger=logger, terminate=lambda: ended.append(1), state=SimpleNamespace(adaptation={}), said=said, ended=ended
    )


def test_the_guard_keeps_what_is_better_and_ends_what_is_not(tmp_path, monkeypatch):
    scan, sharp = _items(tmp_path)
    network, engine = small_network(), _engine()
    guard = AdaptationGuard(network, [scan], [sharp], [sharp], patience=2)
    guard.start(engine)
    for distance, loss, kept in ((0.5, 0.1, True), (0.4, 0.3, False), (0.6, 0.0, False)):
        found = {name: distance * value for name, value in guard.before[0].items()}
        monkeypatch.setattr(guard.scans[0], "distance", lambda network, found=found: found)
        monkeypatch.setattr(guard, "_psnr", lambda network, loss=loss: guard.psnr_before - loss)
        with torch.no_grad():
            network.denoiser.exit.bias += 1
        guard.look(engine)
        assert torch.equal(guard.best.denoiser.exit.bias, network.denoiser.exit.bias) == kept
    assert guard.score == pytest.approx(0.5) and engine.ended == [1]
    other = AdaptationGuard(small_network(seed=1), [scan], [sharp], [sharp])
    other.load_state_dict(guard.state_dict())
    other.start(engine)
    assert (other.score, other.waited, other.before) == (guard.score, guard.waited, guard.before)
    assert torch.equal(other.best.denoiser.exit.bias, guard.best.denoiser.exit.bias)


def test_the_table_holds_the_scan_as_interpolated_and_every_network(tmp_path):
    scan, sharp = _items(tmp_path)
    rows = compare_adaptation([scan], [sharp], {"after": small_network()}, tmp_path / "out")
    assert [row["method"] for row in rows] == ["cubic", "after"] and rows[0]["spectrum"] != rows[1]["spectrum"]
    assert json.loads((tmp_path / "out" / "adaptation.json").read_text())["rows"] == rows


def test_sharp_volumes_are_told_from_each_other_and_one_alone_from_none(tmp_path):
    scan, sharp = _items(tmp_path)
    assert looks_of([sharp])["T1w"].between() == {}
    blurred, same = ({**sharp, "image": str(tmp_path / f"{name}_T1w.nii.gz")} for name in ("blurred", "same"))
    save(tmp_path / "blurred_T1w.nii.gz", blur(_volume(), 4.0).numpy())
    save(tmp_path / "same_T1w.nii.gz", _volume().numpy())
    found = looks_of([sharp, same, blurred])["T1w"].between()
    own, other, far = (found[item["image"]]["spectrum"] for item in (sharp, same, blurred))
    assert own == other < far
    rows = compare_adaptation([scan], [sharp, same, blurred], {}, tmp_path / "out")
    assert [row["method"] for row in rows] == 3 * ["sharp, from others"] + ["cubic"]


def test_what_is_measured_of_a_network_agrees_with_its_scan(tmp_path, monkeypatch):
    scan, sharp = _items(tmp_path)
    case, seen = Scan(scan, looks_of([sharp])["T1w"]), []
    monkeypatch.setattr(Look, "at", lambda image, spacing: seen.append(image))
    monkeypatch.setattr(case.looks, "distance", lambda look, axis: {})
    network = small_network()
    with torch.no_grad():
        network.denoiser.exit.bias += 0.3
    case.distance(network)
    made = SuperResolutionInferer()(case.image, network, case.condition)
    operator = default_operator(tuple(case.image.shape[2:]), tuple(case.low.shape[2:]))
    before, after = (float((operator(y) - case.low).square().mean()) for y in (made, seen[0][None, None]))
    assert after < 0.2 * before
