import pytest
import torch
from data import ROOT, one_head

from bundle.errors import InputError
from bundle.networks.weights import load_super_resolver
from bundle.studies.ablation import arms_of, read_plan, train_all, train_arm
from bundle.studies.report import differences, summarise


def test_the_studies_name_arms_that_there_are():
    plan = read_plan()
    assert arms_of(read_plan(["distillation"])) == ["none", "distilled"] and set(arms_of(plan)) == set(plan["arms"])
    assert arms_of(read_plan(["prior"])) == ["none", "prior", "modulation", "both"]
    assert read_plan(cpu_minutes=2, seeds=None)["cpu_minutes"] == 2 and read_plan(seeds=None)["seeds"] == [0, 1, 2]


def test_an_unknown_study_is_refused():
    with pytest.raises(InputError, match="--studies 'priors': allowed are prior, modulation, distillation"):
        read_plan(["priors"])


@pytest.fixture
def tiny(tmp_path):
    one_head(tmp_path)
    plan = read_plan(["distillation"], cpu_minutes=0.03, seeds=[0])
    return plan | {"pool_size": 8, "epoch_length": 2}, tmp_path


def test_arms_are_trained_once_on_the_same_pool_and_can_be_loaded(tiny):
    plan, folder = tiny
    words = folder / "runs", str(folder), str(folder / "list.json")
    runs = train_all(plan, *words)
    assert [r["arm"] for r in runs] == ["none", "distilled"] and all(r["steps"] >= 1 for r in runs)
    weights = [load_super_resolver(r["weights"]).state_dict() for r in runs]
    assert not torch.equal(weights[0]["denoiser.exit.weight"], weights[1]["denoiser.exit.weight"])
    teacher = load_super_resolver(ROOT / "models" / "model.pt")
    assert torch.allclose(weights[1]["residual_std"], teacher.residual_std)
    assert list((folder / "runs" / "none-0").glob("events*")), "no TensorBoard log"
    before = (folder / "runs" / "none-0" / "model.pt").stat().st_mtime_ns
    assert train_all(plan, *words) == runs  # nothing is trained again
    assert (folder / "runs" / "none-0" / "model.pt").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="made with another budget or arm"):
        train_arm(plan | {"cpu_minutes": 7}, "none", 0, *words)


def _rows():
    values = {("none", 0): 20.0, ("none", 1): 22.0, ("prior", 0): 21.0, ("prior", 1): 22.5}
    shared = {"ssim": 1.0, "gradient": 0.0, "high_frequency": 1.0, "histogram": 0.0, "kind": "real"}
    return [{"arm": a, "seed": s, "psnr": v + d, **shared} for (a, s), v in values.items() for d in (-1, 1)]


def test_tables_hold_mean_and_range_over_seeds_of_means_over_cases():
    runs = [{"arm": a, "steps": n} for a, n in (("none", 100), ("none", 110), ("prior", 50), ("prior", 50))]
    table = summarise(_rows(), runs)
    assert [r["psnr"] for r in table] == ["21 (20 to 22)", "21.75 (21 to 22.5)"]
    assert table[0]["steps"] == "105 (100 to 110)" and table[0]["seeds"] == 2
    change = differences(_rows(), {"compare": {"prior": [("none", "prior")]}}, "prior")
    assert change[0]["arm"] == "prior minus none" and change[0]["psnr"] == "0.75 (0.5 to 1)"
