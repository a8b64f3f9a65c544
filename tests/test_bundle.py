"""What MONAI's own commands and the zoo ask of a bundle."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from data import ROOT, SHARED, head, save
from monai.bundle import ckpt_export, create_workflow, onnx_export, verify_metadata, verify_net_in_out

from bundle.job import load_model

CONFIG, META = str(ROOT / "configs" / "inference.json"), str(ROOT / "configs" / "metadata.json")
WEIGHTS = ROOT / "models" / "model.pt"
SCHEMA = SHARED / "schemas" / "meta_schema_20240725.json"


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema would have to be downloaded")
def test_the_metadata_follow_the_schema():
    verify_metadata(meta_file=META, filepath=str(SCHEMA))


def test_the_network_takes_and_gives_what_the_metadata_say():
    verify_net_in_out(net_id="network_def", meta_file=META, config_file=CONFIG, n=2)


def test_the_torchscript_export_gives_the_same_numbers(tmp_path):
    path = tmp_path / "model.ts"
    ckpt_export(net_id="network_def", filepath=str(path), ckpt_file=str(WEIGHTS), meta_file=META, config_file=CONFIG)
    image = torch.rand(1, 1, 24, 32, 16)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(str(path))(image), load_model()[0](image), atol=1e-5)


def test_the_onnx_export_gives_the_same_numbers(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    onnx_export(net_id="network_def", filepath=str(path), ckpt_file=str(WEIGHTS), meta_file=META, config_file=CONFIG)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = torch.rand([n if isinstance(n, int) else 8 for n in session.get_inputs()[0].shape])
    result = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    with torch.no_grad():
        assert np.allclose(result, load_model()[0](image).numpy(), atol=1e-3)


@pytest.mark.parametrize("kind", ["inference", "train"])
def test_the_workflow_has_all_properties(kind, monkeypatch):
    monkeypatch.chdir(ROOT)
    workflow = create_workflow(config_file=f"configs/{kind}.json", workflow_type=kind, bundle_root=str(ROOT))
    assert workflow.check_properties() == []
    workflow.finalize()


def test_weights_are_plain_and_small():
    files = list((ROOT / "models").glob("*.pt"))
    assert WEIGHTS in files
    for path in files:
        assert path.stat().st_size < 16 * 2**20
        assert all(isinstance(v, torch.Tensor) for v in torch.load(path, weights_only=True).values())


def _run(*words, cwd):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", CONFIG, "--bundle_root", str(ROOT), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_job_runs_from_another_folder_and_with_tracking_keys(tmp_path):
    save(tmp_path / "sub-1_T1w.nii.gz", head((24, 24, 20)))
    done = _run("--input", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--run_name", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "sub-1_desc-superres_T1w.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inputt", "x"], "error: --inputt: not a key of configs/inference.json (did you mean input?)"),
        (["--input", "gone.nii.gz"], "error: gone.nii.gz: no such file or folder"),
        (["--samples", "many"], "error: --samples 'many': allowed is a whole number from 1 to 1000"),
    ],
)
def test_a_refused_run_ends_with_one_line_and_leaves_nothing(tmp_path, words, message):
    done = _run("--output_dir", str(tmp_path / "out"), *words, cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == message
    assert not (tmp_path / "out").exists()


def test_without_weights_the_job_says_where_they_belong(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "configs", copy / "configs")
    shutil.copytree(ROOT / "bundle", copy / "bundle")
    save(tmp_path / "a.nii.gz", head((24, 24, 20)))
    words = ["--input", str(tmp_path / "a.nii.gz"), "--output_dir", str(tmp_path / "out"), "--bundle_root", str(copy)]
    done = _run(*words, cwd=copy)
    assert done.returncode != 0 and "model.pt: no such file; the weights belong there" in done.stderr
    assert not (tmp_path / "out").exists()
