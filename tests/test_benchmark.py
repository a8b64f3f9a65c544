import json

import pytest
import torch

from bundle.benchmark.command import time_command
from bundle.benchmark.machine import PeakMemory
from bundle.benchmark.network import build, combinations, flop_of
from bundle.benchmark.reference import compare_step
from bundle.benchmark.run import benchmark
from bundle.benchmark.training import training
from bundle.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"parts": ["speed"]}, "--parts speed: allowed are network, layers"),
        ({"sizes": [[64, 64]]}, "allowed is a list of shapes"),
        ({"sizes": [[64, 64, 8]]}, "at least 32 voxels"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        benchmark(tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_arithmetic_is_that_of_the_convolutions():
    network = build(None, CPU)
    own, wide = flop_of(network, CPU), flop_of(build("teacher", CPU), CPU)
    # four convolutions of residual blocks per scale, per voxel of the image: the latent has an eighth of them
    blocks = sum(4 * 2 * 27 * width**2 / 8 ** (scale + 1) for scale, width in enumerate((32, 64, 128)))
    assert blocks < own < 1.4 * blocks and wide > 2 * own
    assert own == pytest.approx(flop_of(network, CPU, side=48), rel=0.01)


def test_peak_memory_sees_what_was_there_for_a_moment():
    with PeakMemory(CPU) as before:
        pass
    with PeakMemory(CPU) as memory:
        torch.ones(2**26).sum()
    assert memory.bytes - before.bytes > 0.8 * 2**28


def test_the_memory_of_a_command_is_not_that_of_who_started_it(tmp_path):
    large = torch.ones(2**28)  # 1 GB
    command = time_command((48, 48, 48))
    assert 0.1 < command["peak_GB"] < 1 and large.sum() > 0


def test_every_combination_is_measured_once():
    every = list(combinations(False, True, True))
    assert len(set(every)) == len(every) == 9
    large, small, first = (set(combinations(*flags, False)) for flags in ((False, True), (False, False), (True, False)))
    assert large < small < first < set(every)


def test_the_reference_is_a_diffusion_model_of_the_same_width_and_dearer_per_step():
    step = compare_step(build(None, CPU), CPU, crop=32, repeats=1)
    assert step["DiffusionModelUNet_step_s"] > 0 and step["ours_step_s"] > 0
    assert 0.5 < step["DiffusionModelUNet_parameters"] / step["ours_parameters"] < 4


def test_training_is_measured_apart_and_together_with_its_data():
    rows = {row["what"]: row for row in training(steps=1)}
    assert all(row["examples_per_s"] > 0 for row in rows.values())
    assert [what.partition(":")[0] for what in rows].count("network") == 4
    assert {"data: crops of sharp volumes", "data: crops of label maps", "data: crops of a whole head"} < set(rows)
    assert all(0 <= rows[f"both: half of either, {n} beside"]["waited_for_data"] < 1 for n in ("0 workers", "1 worker"))


def test_a_run_writes_json_tables_and_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    report = benchmark(tmp_path, [[40, 48, 40]], parts=["network", "layers", "command"], repeats=1)
    assert json.loads((tmp_path / "benchmark.json").read_text())["rows"] == report["rows"]
    assert {(r["network"], r["how"], r["steps"]) for r in report["rows"]} >= {
        ("student", "whole", 1),
        ("student", "tiles", 1),
        ("student", "fp32 NCDHW", 1),
        ("student", "whole", 8),
        ("teacher", "whole", 1),
    }
    assert report["layers"][-1]["layer"] == "everything else" and len(report["layers"]) > 15
    (command,) = report["commands"]
    for total, stages in (("s", "stages_s"), ("cpu_s", "stages_cpu_s")):
        assert sum(command[stages].values()) == pytest.approx(command[total], abs=0.1)
        assert min(command[stages].values()) >= 0 and command[stages]["model"] > 0 and command[stages]["import"] > 0
    text = (tmp_path / "benchmark.md").read_text()
    assert "| denoiser.entry |" in text and "| modulator.local.0 |" in text and "## Command" in text
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_where_no_seconds_were_asked_for(tmp_path):
    benchmark(tmp_path, [[40, 48, 40]], parts=["layers"], repeats=1)
    assert (tmp_path / "benchmark.md").is_file() and not (tmp_path / "benchmark.png").exists()
