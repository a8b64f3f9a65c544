import numpy as np
import pytest
import torch

from bundle.networks.seed import SEED_SIZES
from bundle.networks.seed_parts import SeedExtractor, SeedModel
from bundle.studies.report import figure1, figure2, seed_table
from bundle.studies.seed_data import TISSUES, Pairs
from bundle.studies.seed_experiments import ARMS, gradient_consistency, run_seed_experiments, seed_settings


def _pairs(count=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tissue = torch.randint(len(TISSUES), (count, 8, 8), generator=generator).repeat_interleave(4, 1)
    tissue = tissue.repeat_interleave(4, 2)
    high = torch.tensor([0.1, 0.3, 0.6, 1.0])[tissue][:, None]
    return Pairs(torch.nn.functional.avg_pool2d(high, 3, stride=1, padding=1), high, tissue)


def test_the_settings_are_the_papers():
    settings = seed_settings()
    assert settings["image_size"] == 64 and settings["seeds"][0] == 42 and settings["batch_size"] == 8
    assert settings["learning_rate"] == 1e-4 and settings["epochs"] == 1
    assert (settings["alpha"], settings["beta"]) == (0.5, 0.5)


def test_the_networks_have_the_papers_channels_and_the_baseline_one_input_less():
    extractor = SeedExtractor(4)
    guided, baseline = SeedModel("seed teacher", extractor, True), SeedModel("seed teacher")
    assert guided.core.convolutions[0].in_channels == SEED_SIZES["seed teacher"][0] == 2
    assert baseline.core.convolutions[0].in_channels == 1
    assert [c.out_channels for c in SeedModel("seed student").core.convolutions] == [32, 32, 1]
    assert not any(p.requires_grad for p in guided.extractor.parameters())
    assert guided(torch.rand(2, 1, 16, 16))[0].shape == (2, 1, 16, 16)


def test_the_gradient_consistency_ignores_a_constant_and_sees_an_edge():
    image = torch.zeros(1, 1, 8, 8)
    assert gradient_consistency(image + 3, image) == 0
    edge = image.clone()
    edge[..., 4:] = 1
    assert float(gradient_consistency(edge, image)) == pytest.approx(1 / 7 / 2)


def test_all_arms_train_and_the_figures_show_them(tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.studies.seed_experiments.make_pairs", lambda *words, seed: _pairs(32, seed))
    settings = seed_settings() | {"seeds": [42], "learning_rate": 3e-3, "prior_epochs": 2, "epochs": 5}
    told = []
    rows, kept = run_seed_experiments(tmp_path, settings, lambda rows, kept: told.append(len(rows)))
    assert told == [len(ARMS)]
    assert [r["arm"] for r in rows] == list(ARMS) and set(kept) == set(ARMS)
    for arm in ARMS:
        losses = np.array(kept[arm]["losses"])
        assert len(losses) == 20 and losses[-5:].mean() < losses[:5].mean()
        assert list((tmp_path / f"{arm}-42").glob("events*"))
    parameters = {r["arm"]: r["parameters"] for r in rows}
    assert parameters["student distilled"] < parameters["baseline"] < parameters["with modulation"]
    assert len(figure1(kept).axes[0].lines) == 4 and len(figure2(kept).axes) == 2


def test_the_table_holds_mean_and_range_of_the_differences():
    values = {"baseline": (20.0, 22.0), "with prior": (21.0, 22.5)}
    rows = [{"arm": arm, "seed": seed, "psnr": v} for arm, pair in values.items() for seed, v in enumerate(pair)]
    table = seed_table(rows, ["prior"])
    assert [(r["arm"], r["psnr"]) for r in table] == [
        ("baseline", "21 (20 to 22)"),
        ("with prior", "21.75 (21 to 22.5)"),
        ("with prior minus baseline", "0.75 (0.5 to 1)"),
    ]
