"""The command-line module of 3D Slicer, run as Slicer runs it."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ctk_cli import CLIModule
from data import ROOT, head, save

import bundle
from bundle.integrations import slicer_job
from bundle.io import read_volume
from bundle.job import enhance

MODULE = ROOT / "bundle" / "integrations" / "slicer" / "BrainSuperResolution.py"


def slicer(*words, cwd, python=sys.executable, **variables):
    """Run the module by a Python that knows nothing of the bundle's folder, as Slicer's does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    command = [str(word) for word in (python, MODULE, *words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A NRRD as Slicer hands it over: turned axes, no hint at the modality in its name."""
    folder = tmp_path_factory.mktemp("slicer")
    affine = np.array([[0, -1.5, 0, 20], [0, 0, 2, -30], [-1.5, 0, 0, 25], [0, 0, 0, 1]])
    nifti = save(folder / "scan.nii.gz", head((40, 44, 24)), affine)
    path = folder / "BEBJ_vtkMRMLScalarVolumeNodeB.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path))
    return path


def test_the_description_is_sound(tmp_path, caplog):
    done = slicer("--xml", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == MODULE.with_suffix(".xml").read_text()
    path = tmp_path / "BrainSuperResolution.xml"
    path.write_text(done.stdout)
    with caplog.at_level(logging.WARNING):
        module = CLIModule(str(path))
        arguments, options, outputs = module.classifyParameters()
    assert not caplog.text  # ctk_cli warns of what is missing or cannot be passed
    assert module.version == bundle.__version__ and MODULE.read_text().startswith("#!")
    assert [(a.name, a.typ, a.channel) for a in arguments] == [
        ("inputVolume", "image", "input"),
        ("outputVolume", "image", "output"),
    ]
    assert outputs == []
    given = slicer_job.parse(["a.nrrd", "b.nrrd", "--returnparameterfile", "c"])
    for option in options:
        if option.name != "python":  # which the module itself takes out
            assert hasattr(given, option.longflag.lstrip("-")), option.name
            if option.default:
                assert option.parseValue(option.default) == getattr(given, option.longflag.lstrip("-"))


def test_nrrd_in_and_nrrd_out_with_progress_and_maps(scan, tmp_path):
    outputs = {name: tmp_path / f"{name}.nrrd" for name in ("image", "uncertainty", "tissue")}
    words = ["--contrast", "input", "--modality", "T1w", "--spacing", "0"]
    words += ["--uncertainty", outputs["uncertainty"], "--tissue", outputs["tissue"]]
    done = slicer(*words, scan, outputs["image"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [float(v) for v in re.findall(r"<filter-progress>(.+)</filter-progress>", done.stdout)]
    assert steps[0] < 0.1 and steps[-1] == 1 and steps == sorted(steps) and len(set(steps)) >= 5
    marks = [done.stdout.index(f"<filter-{mark}>") for mark in ("start", "progress", "end")]
    assert marks == sorted(marks)
    enhance(str(scan), str(tmp_path / "out"), contrast="input", modality="T1w", save_uncertainty=True, save_tissue=True)
    kinds = {"image": "superres", "uncertainty": "uncertainty", "tissue": "tissue"}
    for name, path in outputs.items():
        found = read_volume(path)
        wanted = read_volume(next((tmp_path / "out").glob(f"*desc-{kinds[name]}*.nii.gz")))
        assert found.shape == wanted.shape == (1, 80, 88, 48)
        assert torch.allclose(found.affine, wanted.affine, atol=1e-4)
        assert torch.allclose(found.as_tensor(), wanted.as_tensor(), atol=0.01 * float(wanted.max())), name
    assert sitk.ReadImage(str(outputs["image"])).GetPixelID() == sitk.sitkFloat32
    assert sitk.ReadImage(str(outputs["tissue"])).GetPixelID() == sitk.sitkUInt8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.nrrd", "out", "tissue.nrrd", "uncertainty.nrrd"]


def test_another_python_does_the_work_and_slicer_s_own_paths_do_not_reach_it(scan, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('the wrong one')")
    done = slicer(
        "--python", sys.executable, "--spacing", "2.5", "--contrast", "input", scan, tmp_path / "out.nrrd",
        cwd=tmp_path, python=sys.executable, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert "nowhere finer than the input's" in done.stderr and done.returncode == 1  # so it came that far
    assert "the wrong one" not in done.stderr


def test_a_python_that_is_not_there_is_one_line(scan, tmp_path):
    done = slicer("--python", "gone/python", scan, tmp_path / "out.nrrd", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: --python gone/python: no such file; name the python")


@pytest.mark.parametrize(
    ("words", "output", "message"),
    [
        (["--contrast", "3T"], "out.nrrd", "error: --contrast '3T': allowed is 7T or input"),
        (["--max_memory", "tiny"], "out.nrrd", "error: --max_memory 'tiny': allowed is a size of at least 64MB"),
        (["--spacing", "1.4"], "file/out.nrrd", "file: cannot write here (File exists)"),
        (["--spacing", "1.4"], "out.gif", "out.gif: cannot be written"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(scan, tmp_path, capsys, words, output, message):
    (tmp_path / "file").write_text("")
    assert slicer_job.main([*words, str(scan), str(tmp_path / output)]) == 1
    text = capsys.readouterr().err.strip()
    assert "\n" not in text and text.startswith("error: ") and message in text
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_python_without_the_packages_says_what_to_do(scan, tmp_path):
    code = f"""import runpy, sys
sys.path = [p for p in sys.path if "site-packages" not in p]
sys.argv = {[str(MODULE), str(scan), "out.nrrd"]!r}
runpy.run_path(sys.argv[0], run_name="__main__")"""
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 1 and "lacks torch, monai" in done.stderr and "name another environment" in done.stderr
