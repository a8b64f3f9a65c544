import subprocess
import sys

import pytest
import torch
from data import ROOT

from bundle.compute import autocast, free_memory, pick_device, share_machine
from bundle.errors import InputError


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="abacus"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees no GPU; use --device cpu"):
            pick_device("cuda")
        assert pick_device(None) == torch.device("cpu")


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr("bundle.compute._CGROUP", tmp_path)
    assert free_memory("cpu") == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory("cpu") > 2**26


def test_precision_can_be_switched_off():
    with autocast("cpu", enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_gpus_without_bf16_infer_in_fp16_and_train_in_fp32(monkeypatch):
    monkeypatch.setattr("bundle.compute.has_fast_bf16", lambda device: False)
    assert not isinstance(autocast("cuda"), torch.autocast)
    with torch.no_grad():
        assert autocast("cuda").fast_dtype == torch.float16
        assert not isinstance(autocast("cpu"), torch.autocast)


def test_free_memory_is_plausible():
    assert 2**26 < free_memory("cpu") < 2**46


def _cgroups(tmp_path, monkeypatch, listing, **files):
    """Control groups of a made-up machine: content by path."""
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    (tmp_path / "own").write_text(listing)
    monkeypatch.setattr("bundle.compute._CGROUP", tmp_path)
    monkeypatch.setattr("bundle.compute._OWN_CGROUP", tmp_path / "own")


def test_the_limit_of_a_batch_job_counts_and_its_cache_does_not(tmp_path, monkeypatch):
    job = {"slurm__job__memory_dot_max": 9000, "slurm__job__memory_dot_current": 6000}
    job["slurm__job__memory_dot_stat"] = "anon 1000\ninactive_file 4000\n"
    step = {"slurm__job__step__memory_dot_max": "max\n", "slurm__job__step__memory_dot_current": 10}
    _cgroups(tmp_path, monkeypatch, "0::/slurm/job/step\n", **job, **step)
    assert free_memory("cpu") == 7000


def test_the_limit_of_an_old_control_group_counts(tmp_path, monkeypatch):
    files = {"memory_dot_limit_in_bytes": 8000, "memory_dot_usage_in_bytes": 5000}
    _cgroups(
        tmp_path, monkeypatch, "7:memory:/uid_1/job\n", **{f"memory__uid_1__job__{k}": v for k, v in files.items()}
    )
    assert free_memory("cpu") == 3000


def test_processes_that_share_a_machine_share_its_memory():
    alone = free_memory("cpu")
    try:
        share_machine(4)
        assert free_memory("cpu") < 0.3 * alone
        share_machine(1, most=1)
        assert free_memory("cpu") == 0
    finally:
        share_machine(1)


def test_the_limit_of_the_shell_counts():
    code = """
import resource, bundle.compute as compute
import psutil
size = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
print(compute.free_memory("cpu"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert 250 * 2**20 < int(done.stdout) <= 300 * 2**20
