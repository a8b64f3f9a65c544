import pytest
import torch

from bundle.compute import autocast, free_memory, pick_device
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


def test_free_memory_is_plausible():
    assert 2**26 < free_memory("cpu") < 2**46
