import json
import shutil

import pytest
import torch
from data import ROOT, head, save, small_network

from bundle import job
from bundle.errors import InputError


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle whose model is a small one, its network defined in an overlay."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "configs" / "inference.json", tmp_path / "configs")
    definition = {"_target_": "bundle.networks.super_resolver.SuperResolver", "size": "small", "modulation": True}
    (tmp_path / "configs" / "model_tiny.json").write_text(json.dumps({"network_def": definition}))
    torch.save(small_network(modulation=True).state_dict(), tmp_path / "models" / "model_tiny.pt")
    monkeypatch.setattr(job, "ROOT", tmp_path)
    return tmp_path


def test_a_model_is_what_its_overlay_says(bundle):
    network, path = job.load_model("tiny")
    assert network.modulator is not None and path == bundle / "models" / "model_tiny.pt" and not network.training
    with pytest.raises(InputError, match="--model huge: no .*model_huge.json"):
        job.load_model("huge")
    with pytest.raises(InputError, match="model.pt: no such file"):
        job.load_model()


def test_calibration_is_saved_with_the_weights_and_covers_the_errors_it_was_made_on(bundle, capsys):
    pytest.importorskip("matplotlib")
    save(bundle / "a_T1w.nii.gz", head((36, 36, 36)))
    listing = bundle / "list.json"
    listing.write_text(json.dumps({"validation": [{"image": "a_T1w.nii.gz"}], "other": [{"image": "a_T1w.nii.gz"}]}))
    words = (str(listing), bundle / "out")
    job.uncertainty(*words, "validation", str(bundle), 2, "tiny", True)
    assert "uncertainty multiplied by" in capsys.readouterr().out
    scale = job.load_model("tiny")[0].spread_scale
    assert float(scale[0, 1]) != 1 and float(scale[1, 1]) == 1
    job.uncertainty(*words, "validation,other", str(bundle), 2, "tiny", False)
    rows = json.loads((bundle / "out" / "uncertainty.json").read_text())["rows"]
    assert len(rows) == 2 and rows[0]["coverage"]["0.9"] == pytest.approx(0.9, abs=0.01)
    assert torch.equal(job.load_model("tiny")[0].spread_scale, scale)


def test_every_network_gets_a_row(bundle, capsys):
    shutil.copy(bundle / "configs" / "model_tiny.json", bundle / "configs" / "inference.json")
    weights = bundle / "models" / "model_tiny.pt"
    shutil.copy(weights, bundle / "models" / "model.pt")
    torch.save(small_network(seed=1).state_dict(), bundle / "other.pt")
    path = str(save(bundle / "a_T1w.nii.gz", head((24, 24, 24))))
    networks = f"same={weights},other={bundle / 'other.pt'}"
    job.evaluate(path, bundle / "out", "", "", ["A"], [(2, 2, 2)], networks, None, "cpu", tissue=False)
    rows = {r["method"]: r["psnr"] for r in json.loads((bundle / "out" / "results.json").read_text())["rows"]}
    assert rows["same"] == rows["bundle"] != rows["other"]
    assert "| other |" in capsys.readouterr().out


@pytest.mark.parametrize("name", [None, "teacher", "moe"])
def test_every_shipped_network_loads_and_sharpens(name):
    network, _ = job.load_model(name)
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 8, 8, 8), scale_factor=4, mode="trilinear")
    with torch.no_grad():
        result = network(image)
    assert result.isfinite().all() and 0.001 < float((result - image).abs().mean()) < 0.5
