import json
import os
import subprocess
import sys

import pytest
import torch
from data import ROOT, head, save

from bundle.distributed import Synchronise, average_gradients, start

TRAINING = """
import json, sys, torch
from pathlib import Path
from types import SimpleNamespace
import ignite.distributed as idist
from bundle.distributed import Synchronise, start, stop
from bundle.engines.diffusion import DiffusionStep
from bundle.networks.super_resolver import SuperResolver, encode_condition

device = start()
rank, world = idist.get_rank(), idist.get_world_size()
torch.manual_seed(rank)  # other weights in every process, until they are made the same
network = SuperResolver("small", modulation=True)
Synchronise([network])(None)
engine = SimpleNamespace(network=network, optimizer=torch.optim.AdamW(network.parameters(), 3e-3),
                         loss_function=torch.nn.MSELoss(), state=SimpleNamespace(device=device))
step = DiffusionStep(share=1.0, image_loss=torch.nn.MSELoss(), amp=False)
generator, losses = torch.Generator().manual_seed(0), []
for _ in range(6):
    low = torch.rand(4, 1, 16, 16, 16, generator=generator)
    batch = {"image": low, "label": low + 0.3 * low.roll(1, 2),
             "condition": encode_condition("input", "T1w", (2, 2, 2))[None].expand(4, -1)}
    own = step(engine, {k: v[rank::world] for k, v in batch.items()})["loss"]
    losses.append(idist.all_reduce(own) / world)
weights = network.denoiser.entry.weight
result = {"world": world, "losses": losses, "weight": weights.abs().sum().item()}
Path(f"{sys.argv[1]}/{world}_{rank}.json").write_text(json.dumps(result))
stop()
"""


def _torchrun(processes, *words):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_a_single_process_is_left_alone():
    layer = torch.nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    average_gradients(layer.parameters())
    Synchronise([layer])(None)
    assert torch.equal(layer.weight.grad, before)
    assert start().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_two_processes_learn_as_one_with_the_same_global_batch(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    for processes in (1, 2):
        done = _torchrun(processes, str(script), str(tmp_path))
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("1_0", "2_0", "2_1"))
    assert (one["world"], first["world"]) == (1, 2)
    assert one["losses"][-1] < one["losses"][0]
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-4) and second["losses"] == first["losses"]
    assert first["weight"] == second["weight"] == pytest.approx(one["weight"], rel=1e-4)


@pytest.mark.slow
def test_the_training_runs_in_two_processes_and_the_first_one_writes(tmp_path):
    datalist = {"training": [{"image": "a_T1w.nii.gz"}], "validation": [{"image": "a_T1w.nii.gz"}]}
    save(tmp_path / "a_T1w.nii.gz", head((80, 80, 80)))
    (tmp_path / "list.json").write_text(json.dumps(datalist))
    files = ["configs/train.json", "configs/smoke.json", "configs/multi_gpu.json"]
    out = tmp_path / "run"
    words = ["--datalist", str(tmp_path / "list.json"), "--dataset_dir", str(tmp_path), "--output_dir", str(out)]
    done = _torchrun(2, "-m", "monai.bundle", "run", "--config_file", str(files), *words, "--num_workers", "0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.name for p in out.glob("*.pt")) == ["checkpoint.pt", "model.pt"]
    writers = {path.name.split(".")[-2] for path in out.glob("*tfevents*")}  # by the number of the process
    assert len(writers) == 1 and "epoch 3/3" in done.stdout + done.stderr
