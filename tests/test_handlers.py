import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from data import ROOT, head, phantom_map, save, small_network
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.handlers import FitResidualStd, GateWatch, Resume, StageSchedule, TrainingLog
from bundle.networks.super_resolver import SuperResolver, encode_condition
from bundle.networks.weights import write_weights


def _trainer(module, folder, stop_after=None):
    def update(engine, batch):
        with torch.no_grad():
            module.weight += 1
        return {"loss": 1.0}

    trainer = Engine(update)
    trainer.optimizer = torch.optim.SGD(module.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, T_max=4)
    LrScheduleHandler(schedule, print_lr=False).attach(trainer)
    state = {"network": module, "optimizer": trainer.optimizer, "lr_scheduler": schedule}
    Resume(state, module, folder, every=1).attach(trainer)
    trainer.rates, trainer.drawn = [], []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: e.rates.append(e.optimizer.param_groups[0]["lr"]))
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: e.drawn.append(float(torch.rand(()))))
    TrainingLog(str(folder)).attach(trainer)
    if stop_after:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop_after), lambda e: e.terminate())
    return trainer


def test_the_same_command_goes_on_where_the_last_one_stopped(tmp_path):
    module = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(module.weight)
    torch.manual_seed(0)
    first = _trainer(module, tmp_path, stop_after=2)
    first.run(range(5), max_epochs=4)
    assert float(module.weight) == 10
    fresh = torch.nn.Linear(1, 1)
    trainer = _trainer(fresh, tmp_path)
    torch.manual_seed(0)
    trainer.run(range(5), max_epochs=4)
    assert first.rates + trainer.rates == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-3)
    assert len(set(first.drawn + trainer.drawn)) == 4  # a resumed run does not see the same random numbers again
    with pytest.raises(SystemExit, match="made with --max_epochs 4, not 6"):
        _trainer(fresh, tmp_path).run(range(5), max_epochs=6)
    assert float(fresh.weight) == 20 and trainer.state.epoch == 4 and trainer.state.iteration == 20
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"]) == 20
    assert not [n for n in os.listdir(tmp_path) if n.endswith(".tmp")]
    assert [n for n in os.listdir(tmp_path) if "tfevents" in n]


def test_the_residual_scale_is_measured_once():
    network = SuperResolver("small")
    batch = {
        "image": torch.rand(2, 1, 8, 8, 8),
        "label": torch.rand(2, 1, 8, 8, 8),
        "condition": encode_condition("input", "T1w", (2, 2, 2))[None].expand(2, -1),
    }
    handler = FitResidualStd(network, [batch])
    handler(Engine(lambda e, b: None))
    measured = network.residual_std.clone()
    assert not torch.equal(measured, torch.ones_like(measured))
    batch["label"] = batch["label"] * 5
    handler(Engine(lambda e, b: None))
    assert torch.equal(network.residual_std, measured)


def test_the_scale_is_taken_from_a_teacher():
    network, teacher = SuperResolver("small"), small_network()
    FitResidualStd(network, [], source=teacher)(Engine(lambda e, b: None))
    assert torch.equal(network.residual_std, teacher.residual_std)


def test_the_stage_follows_from_the_epoch(caplog):
    ends = (0.25, 0.5, 1.0)
    stages = [SimpleNamespace(name=str(until), until=until, strength=1.0, steps=1, teacher=True) for until in ends]
    entered = []
    step = SimpleNamespace(stages=stages, teacher_steps=8, enter=entered.append)
    trainer = Engine(lambda e, b: None)
    StageSchedule(step).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=5), lambda e: e.terminate())
    with caplog.at_level("INFO"):
        trainer.run(range(2), max_epochs=8)
    assert entered == [0, 1, 2]
    assert "stage 2 of 3, '0.5', from epoch 3: strength 1, 1 of the teacher's 8 steps" in caplog.text
    resumed = Engine(lambda e, b: None)
    StageSchedule(step).attach(resumed)
    resumed.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", 3))
    resumed.run(range(2), max_epochs=8)
    assert entered == [0, 1, 2, 1, 2]


def test_the_stage_follows_from_a_budget(caplog):
    stages = [SimpleNamespace(name=str(u), until=u, strength=1.0, steps=1, teacher=u < 1) for u in (0.5, 1.0)]
    entered, budget = [], SimpleNamespace(spent=0.0, seconds=10.0)
    step = SimpleNamespace(stages=stages, teacher_steps=8, enter=entered.append)
    trainer = Engine(lambda e, b: setattr(budget, "spent", budget.spent + 2.0))
    StageSchedule(step, budget).attach(trainer)
    with caplog.at_level("INFO"):
        trainer.run(range(1), max_epochs=7)  # two epochs more than the budget has
    assert entered == [0, 1] and "stage 2 of 2, '1.0', from epoch 4: the truth alone" in caplog.text


def _watched(shares, **options):
    def update(engine, batch):
        engine.state.mixture = {"shares": shares[engine.state.epoch - 1], "balance": 0.5}

    trainer = Engine(update)
    GateWatch(**options).attach(trainer)
    return trainer


def test_a_gate_that_collapses_is_warned_about(caplog):
    with caplog.at_level("INFO"):
        _watched([[0.4, 0.3, 0.3], [0.02, 0.95, 0.03], [0.3, 0.4, 0.3]]).run(range(3), max_epochs=3)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("the gate has collapsed: 'cortex' has 95% of all shares in epoch 2, above 90%")
    assert "gate: centrum semiovale 0.400, cortex 0.300, junction 0.300, balance 0.5" in caplog.text


def test_the_limit_of_a_collapse_can_be_set(caplog):
    _watched([[0.5, 0.25, 0.25]], limit=0.4).run(range(2), max_epochs=1)
    assert "'centrum semiovale' has 50%" in caplog.text


TRAININGS = {"train": None, **{p.stem: p.name for p in sorted((ROOT / "configs").glob("train_*.json"))}}
TRAININGS.pop("train_pairs")  # wants pairs: see test_pairs
TRAININGS["distill"] = "distill.json"


@pytest.mark.parametrize("name", TRAININGS)
def test_a_killed_training_goes_on_by_the_same_command(name, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    save(data / "a.nii.gz", head((64, 64, 64)))
    save(data / "labels.nii.gz", *phantom_map())
    labels = {"image": "labels.nii.gz", "kind": "label_map"}
    sections = {
        "training": [{"image": "a.nii.gz"}, labels],
        "validation": [{"image": "a.nii.gz"}],
        "tuning_simulated": [labels],
    }
    (tmp_path / "list.json").write_text(json.dumps(sections))
    files = ["configs/train.json", *([f"configs/{TRAININGS[name]}"] if TRAININGS[name] else []), "configs/smoke.json"]
    options = {
        "config_file": str(files),
        "dataset_dir": data,
        "datalist": tmp_path / "list.json",
        "output_dir": tmp_path / "run",
    }
    if name == "distill":
        write_weights(
            tmp_path / "teacher.pt", small_network(prior=True, modulation=True, uncertainty=True).state_dict()
        )
        options |= {"teacher_weights": tmp_path / "teacher.pt", "teacher_def#size": "small"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", *words]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint, deadline = tmp_path / "run" / "checkpoint.pt", time.monotonic() + 300
    while not checkpoint.exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    epoch = torch.load(checkpoint, weights_only=True)["epoch"]
    tracking = ["--tracking", "mlflow"] if find_spec("mlflow") else []
    second = subprocess.run([*command, *tracking], cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr[-3000:]
    if epoch < 3:
        assert f"going on from {checkpoint} after epoch {epoch}" in second.stdout + second.stderr
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 3
    if name == "distill":
        assert f"stage {epoch + 2} of 5" in second.stdout + second.stderr
    assert "val_" in second.stdout + second.stderr
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert "validation/0" in events.Tags()["images"]
    if tracking and epoch < 3:
        _check_tracking(tmp_path / "run")


def _check_tracking(folder):
    """Losses of every iteration, a metric of the validation, and the config among the artifacts."""
    with contextlib.closing(sqlite3.connect(folder / "mlruns.db")) as database:
        steps = dict(database.execute("select key, max(step) from metrics group by key"))
    assert steps["train_loss"] == 12 and len(set(steps) - {"train_loss", "lr_group_0"}) >= 1
    assert list(folder.glob("mlruns/*/artifacts/config_*.json"))
