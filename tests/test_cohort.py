import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from data import ROOT, head, save

from bundle import cohort, compute
from bundle.cohort import Job, enhance_one, own_device, portable, stamp
from bundle.errors import InputError
from bundle.failures import Failure
from bundle.job import enhance
from bundle.options import parse_options

distributed = pytest.importorskip("distributed", reason="the optional extra 'cluster' is not installed")


@pytest.fixture
def source(tmp_path):
    """Five volumes, and one that is refused."""
    folder = tmp_path / "in #1"
    folder.mkdir()
    for k in range(5):
        save(folder / f"sub-{k}_T1w.nii.gz", head((28, 26, 30), seed=k))
    save(folder / "bad.nii.gz", np.full((20, 20, 20), np.nan, np.float32))
    return folder


def _config(output_dir):
    config = json.loads((ROOT / "configs" / "inference.json").read_text())
    return portable({**config, "bundle_root": str(ROOT), "output_dir": output_dir, "contrast": "input"})


@pytest.fixture
def as_worker(monkeypatch):
    """This process as a worker without Dask around it."""
    worker = SimpleNamespace(name=0, memory_manager=SimpleNamespace(memory_limit=None))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    threads, folder = torch.get_num_threads(), os.getcwd()
    yield worker
    os.chdir(folder)
    cohort._workflow.cache_clear()
    compute.share_machine(1)
    torch.set_num_threads(threads)


def test_a_worker_builds_its_workflow_once_and_does_volume_after_volume(source, tmp_path, as_worker):
    out = tmp_path / "out #2"
    job = Job(_config(Path("out #2")), str(tmp_path), cohort.__version__, 2, True)
    outcomes = []
    for path in sorted(source.iterdir())[:3]:
        result = str(out / f"{path.name[:5]}_desc-superres_T1w.nii.gz")
        out.mkdir(exist_ok=True)
        outcomes.append(enhance_one(job, {"image": f"in #1/{path.name}"}, result, None))
    assert isinstance(outcomes[0], Failure) and "NaN" in outcomes[0].reason
    assert outcomes[1:] == [str(Path("out #2") / f"sub-{k}_desc-superres_T1w.nii.gz") for k in (0, 1)]
    assert all((tmp_path / outcome).exists() for outcome in outcomes[1:])
    assert cohort._workflow.cache_info().misses == 1
    assert compute._Share.processes == 2


def test_what_a_lost_worker_had_done_is_not_done_again(source, tmp_path):
    result = save(tmp_path / "result.nii.gz", head())
    before = stamp(str(result))
    assert before == stamp(str(result)) and stamp(str(tmp_path / "none")) is None
    save(tmp_path / "new.nii.gz", head()).replace(result)
    job = Job("no config at all", "", "", 1, True)
    assert enhance_one(job, {"image": "gone"}, str(result), before) == str(result)
    assert enhance_one(job, {"image": "gone"}, str(result), None) == str(result)


def test_a_worker_with_another_version_says_so(tmp_path):
    outcome = enhance_one(Job("", "", "0.0.1", 1, False), {"image": "a"}, str(tmp_path / "none"), None)
    assert "0.0.1 sent it work" in outcome.reason


def test_the_config_that_workers_get_is_plain_and_has_no_cohort_of_its_own():
    given = {"weights": "$@bundle_root + '/m.pt'", "output_dir": Path("o"), "workers": 3, "input": Path("x")}
    config = json.loads(portable(given))
    assert config["output_dir"] == "o" and config["weights"] == given["weights"]
    assert config["workers"] == 0 and config["input"] is None
    for bad, words in (({"output_dir": "o", "a": object()}, "plain data"), (None, "within a config")):
        with pytest.raises(InputError, match=words):
            portable(bad)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    job = Job("", str(tmp_path / "gone"), cohort.__version__, 1, False)
    assert "no such folder where the worker runs" in enhance_one(job, {"image": "a"}, "none", None).reason


def test_local_workers_take_turns_with_gpus_where_the_choice_is_open():
    assert [own_device(None, k, 2) for k in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert (
        own_device("cuda:1", 0, 2) == "cuda:1" and own_device("cpu", 1, 2) == "cpu" and own_device(None, 0, 1) is None
    )


def test_without_dask_the_job_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="need Dask; run: pip install '.\\[cluster\\]'"):
        enhance(str(source), str(tmp_path / "out"), workers=2)


def test_a_cluster_that_does_not_answer_is_one_line(source, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "PATIENCE", 1)
    with pytest.raises(SystemExit, match="error: --scheduler tcp://127.0.0.1:9: no Dask scheduler answers there"):
        enhance(str(source), str(tmp_path / "out"), scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("value", ["$x", "somewhere", "tcp://$(x)", "@x.json"])
def test_schedulers_are_addresses_or_files(value):
    with pytest.raises(InputError, match="--scheduler"):
        parse_options(scheduler=value)


def _kill_one_worker_after_the_first_result(out, notes):
    """Wait for a result, then kill a worker at its work; note what was done by then."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    while not (done := list(out.glob("*.nii.gz"))) and not notes.get("over"):
        time.sleep(0.02)
    workers = [p for p in psutil.Process().children() if p.pid not in before and "spawn_main" in " ".join(p.cmdline())]
    workers = [p for p in workers if p.memory_info().rss > 3e8]  # those that have loaded the network
    notes["done"] = {p.name: stamp(str(p)) for p in done}
    workers[0].kill()
    notes["killed"] = workers[0].pid


def test_two_workers_of_which_one_is_killed_do_every_volume_once_with_the_same_result(source, tmp_path, capfd):
    alone, out, notes = tmp_path / "alone", tmp_path / "out", {}
    with pytest.raises(SystemExit):
        enhance(str(source), str(alone))
    killer = threading.Thread(target=_kill_one_worker_after_the_first_result, args=(out, notes), daemon=True)
    killer.start()
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        enhance(str(source), str(out), workers=2)
    notes["over"] = True
    killer.join()
    assert notes["killed"] and notes["done"]
    message = str(ended.value)
    assert "1 of 6 volumes were refused" in message and "bad.nii.gz" in message and "not begun" not in message
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(p.name for p in alone.iterdir())
    for name in (n for n in names if n.endswith(".nii.gz")):
        one, two = nib.load(alone / name), nib.load(out / name)
        assert np.array_equal(one.affine, two.affine) and np.allclose(one.get_fdata(), two.get_fdata(), atol=1e-2)
    told = [line for line in capfd.readouterr().out.splitlines() if " -> " in line]
    assert len(told) == 5 == len(set(told))
    assert all(stamp(str(out / name)) == before for name, before in notes["done"].items())  # once is enough
