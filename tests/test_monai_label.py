"""The MONAI Label app and the stock ``monaibundle`` app, asked over REST. ``make label`` installs what they need."""

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from data import ROOT, head, save
from label_server import interpreter, running

from bundle.io import read_volume
from bundle.job import enhance
from bundle.networks.anatomy import TISSUES
from bundle.tissue import vote

pytestmark = pytest.mark.skipif(interpreter() is None, reason="MONAI Label is not installed; run: make label")
APP = ROOT / "bundle" / "integrations" / "monai_label"


def oblique():
    """Voxels of 2 mm, axes to the front, to the left and up, turned by 10 degrees about the last one."""
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    affine = np.eye(4)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine[:3, :3] = 2 * turn @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    affine[:3, 3] = [31, -40, -25]
    return affine


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A lopsided head in a NIfTI."""
    volume = head((44, 40, 36))
    volume[:22, :12] *= 0.4
    return save(tmp_path_factory.mktemp("scan") / "scan_T1w.nii.gz", volume, oblique())


@pytest.fixture(scope="module")
def truth(scan):
    """What the command makes of it, with the tissue map."""
    folder = scan.parent / "out"
    enhance(str(scan), str(folder), save_tissue=True)
    enhance(str(scan), str(folder / "input"), contrast="input")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, scan):
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("model", "logs", "lib", "bin", "__pycache__"))
    (folder / "studies").mkdir()
    for name in "ab":
        save(folder / "studies" / f"{name}_T1w.nii.gz", head((64, 64, 64), seed=ord(name)))
    with running(folder / "app", folder / "studies", folder / "log.txt") as running_server:
        running_server.folder = folder
        yield running_server


def assert_alike(found, wanted):
    """Equal but for bf16: threads and memory layout change its rounding."""
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    error = np.abs(found - wanted) / wanted.max()
    assert found.shape == wanted.shape and error.max() < 0.02 and error.mean() < 5e-4, (error.max(), error.mean())


def received(answer, path):
    assert answer.status_code == 200, answer.text[:500]
    path.write_bytes(answer.content)
    return path


def test_the_app_says_what_it_serves(server):
    info = server.get("info/")
    assert {name: model["type"] for name, model in info["models"].items()} == {
        "superres": "others",
        "tissue": "segmentation",
    }
    assert info["models"]["superres"]["config"]["contrast"] == ["7T", "input"]
    assert info["models"]["tissue"]["labels"] == {name: i for i, name in enumerate(TISSUES) if i}
    assert list(info["trainers"]) == ["superres"]


def test_the_image_is_the_command_s_own_result(server, scan, truth, tmp_path):
    session = server.session(scan)
    wanted = nib.load(next(truth.glob("*superres*.nii.gz")))
    found = nib.load(received(server.infer("superres", session), tmp_path / "answer.nii.gz"))
    assert found.get_data_dtype() == np.float32 and found.shape == wanted.shape == (88, 80, 72)
    assert np.allclose(found.affine, wanted.affine, atol=1e-4)
    assert_alike(found.dataobj, wanted.dataobj)
    kept = nib.load(next((truth / "input").glob("*superres*.nii.gz"))).get_fdata()
    other = nib.load(received(server.infer("superres", session, contrast="input"), tmp_path / "input.nii.gz"))
    assert_alike(other.dataobj, kept)
    assert not np.allclose(other.get_fdata(), found.get_fdata(), atol=0.02 * kept.max())


def test_the_image_comes_as_nrrd_too(server, scan, truth, tmp_path):
    source = tmp_path / "scan_T1w.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(scan)), str(source))
    answer = received(server.infer("superres", server.session(source)), tmp_path / "answer.nrrd")
    assert sitk.ReadImage(str(answer)).GetPixelID() == sitk.sitkFloat32
    found, wanted = read_volume(answer), read_volume(next(truth.glob("*superres*.nii.gz")))
    assert torch.allclose(found.affine, wanted.affine, atol=1e-4)
    assert_alike(found, wanted)


def test_the_tissue_map_lies_on_the_input(server, scan, truth, tmp_path):
    params = {"result_extension": ".nrrd"}  # as Slicer's client asks
    answer = received(server.infer("tissue", server.session(scan), **params), tmp_path / "answer.nrrd")
    assert sitk.ReadImage(str(answer)).GetPixelID() == sitk.sitkUInt8
    found, source = read_volume(answer), read_volume(scan)
    assert found.shape == source.shape and torch.allclose(found.affine, source.affine, atol=1e-4)
    fine = torch.from_numpy(np.asarray(nib.load(next(truth.glob("*tissue*.nii.gz"))).dataobj))[None]
    assert torch.equal(found.as_tensor().byte(), vote(fine, source.shape[1:]))
    assert len(found.unique()) > 2 and int(found.max()) < len(TISSUES)


def test_what_is_refused_comes_back_as_one_line(server, scan, tmp_path):
    session = server.session(scan)
    for params, message in [
        ({"contrast": "3T"}, "--contrast '3T': allowed is 7T or input"),
        ({"target_spacing": "[9,9,9]"}, "is nowhere finer than the input's"),
        ({"weights": "trained"}, "train on this server, or take shipped"),
        ({"device": "$print(1)"}, "allowed are cpu, cuda and cuda:N"),  # a config would run it
        ({"max_memory": "$print(1)"}, "allowed is a size of at least 64MB"),
    ]:
        answer = server.infer("superres", session, **params)
        assert answer.status_code == 400 and message in answer.json()["detail"]
    flat = save(tmp_path / "flat.nii.gz", np.ones((30, 30, 30), np.float32))
    answer = server.infer("superres", server.session(flat))
    assert answer.status_code == 400 and "this is not an image" in answer.json()["detail"]


def test_a_training_takes_no_text_that_a_config_would_run(server):
    for name in ("learning_rate", "epoch_length", "tracking_uri", "device"):
        answer = server.train("superres", run_sync=True, **{name: "$print(1)"})
        assert answer.status_code == 400 and "$print(1)" in answer.json()["detail"]
    assert list((server.folder / "app" / "model").iterdir()) == []


def test_training_uses_the_images_of_the_server_and_its_weights_can_be_asked_for(server, scan, tmp_path):
    sizes = {"epoch_length": 2, "batch_size": 2, "patch_size": 24, "validation_size": 24, "num_workers": 0}
    assert server.train("superres", max_epochs=1, val_interval=1, **sizes).status_code == 200
    status = server.wait_for_training()
    assert status["status"] == "DONE", status
    (folder,) = (server.folder / "app" / "model").iterdir()
    lists = json.loads((folder / "datalist.json").read_text())
    assert [Path(item["image"]).name for item in lists["training"] + lists["validation"]] == [
        "a_T1w.nii.gz",
        "b_T1w.nii.gz",
    ]
    trained, shipped = (torch.load(p, weights_only=True) for p in (folder / "model.pt", ROOT / "models" / "model.pt"))
    moved = max(float((trained[k].float() - v.float()).abs().max()) for k, v in shipped.items())
    assert trained.keys() == shipped.keys() and 0 < moved < 0.1  # it went on from the shipped weights
    answer = server.infer("superres", server.session(scan), weights="trained")
    assert nib.load(received(answer, tmp_path / "answer.nii.gz")).shape == (88, 80, 72)


def test_the_stock_app_gives_the_same_image_in_world_space(scan, truth, tmp_path):
    find = "import monailabel.main as m; print(m.Main()._get_installed_dir(None, 'sample-apps'))"
    found = subprocess.run([interpreter(), "-W", "ignore", "-c", find], capture_output=True, text=True, check=True)
    app = tmp_path / "app"
    shutil.copytree(Path(found.stdout.strip().splitlines()[-1]) / "monaibundle", app)
    for part in ("bundle", "configs", "models"):
        shutil.copytree(ROOT / part, app / "model" / "brain_superres" / part)
    (tmp_path / "studies").mkdir()
    with running(app, tmp_path / "studies", tmp_path / "log.txt", "--conf", "models", "brain_superres") as stock:
        answer = received(stock.infer("brain_superres", stock.session(scan)), tmp_path / "answer.nii.gz")
    wanted, image = nib.load(next(truth.glob("*superres*.nii.gz"))), nib.load(answer)
    assert np.allclose(image.affine, wanted.affine, atol=1e-4)
    assert_alike(image.dataobj, wanted.dataobj)
    assert not (tmp_path / "output").exists()  # nothing is left on the server's disk
