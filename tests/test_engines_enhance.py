import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from data import centre_of_mass, head, save

from bundle.engines.enhance import preflight
from bundle.job import enhance
from bundle.networks.anatomy import TISSUES


@pytest.fixture
def folder(tmp_path):
    """Two good volumes and two bad ones."""
    source = tmp_path / "in put"
    source.mkdir()
    save(source / "good_T1w.nii.gz", head((24, 26, 20)), np.diag([-1.0, 1, 1, 1]))
    save(source / "thick_T2w.nii.gz", head((40, 40, 16)), np.diag([0.8, 0.8, 4, 1]))
    save(source / "constant.nii.gz", np.ones((20, 20, 20), np.float32))
    volume = head((20, 20, 20))
    volume[0, 0, 0] = np.nan
    save(source / "nan.nii.gz", volume)
    return source


def test_a_cohort_goes_on_after_refused_volumes_and_ends_with_their_table(folder, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        enhance(str(folder), str(out), contrast="input")
    message = str(ended.value)
    assert re.search("constant.nii.gz +all voxels have about the same value", message)
    assert re.search("nan.nii.gz +1 voxels are NaN or Inf", message) and "2 of 4 volumes were refused" in message
    rows = list(csv.DictReader((out / "failures.csv").read_text().splitlines()))
    assert [Path(row["file"]).name for row in rows] == ["constant.nii.gz", "nan.nii.gz"]
    assert rows[1]["reason"].startswith("1 voxels are NaN or Inf")
    names = sorted(p.name for p in out.glob("*superres*"))
    assert names == [f"{n}_desc-superres.{e}" for n in ("good_T1w", "thick_T2w") for e in ("json", "nii.gz")]
    good, thick = (nib.load(out / f"{n}_desc-superres.nii.gz") for n in ("good_T1w", "thick_T2w"))
    assert good.shape == (48, 52, 40) and thick.shape == (40, 40, 80)
    assert np.allclose(thick.header.get_zooms(), 0.8)
    for name in ("good_T1w", "thick_T2w"):
        source = folder / f"{name}.nii.gz"
        assert np.allclose(centre_of_mass(source), centre_of_mass(out / f"{name}_desc-superres.nii.gz"), atol=0.5)


def test_a_second_run_skips_what_is_done_and_makes_the_rest(folder, tmp_path, capsys):
    out = tmp_path / "out"
    enhance(str(folder / "good_T1w.nii.gz"), str(out))
    result = out / "good_T1w_desc-superres.nii.gz"
    before = result.stat().st_mtime_ns
    capsys.readouterr()
    enhance(str(folder / "good_T1w.nii.gz"), str(out))
    assert "done before, skipped" in capsys.readouterr().out and result.stat().st_mtime_ns == before
    enhance(str(folder / "good_T1w.nii.gz"), str(out), overwrite="true")
    assert result.stat().st_mtime_ns > before


def test_on_error_stop_ends_at_the_first_refusal(folder, tmp_path):
    with pytest.raises(SystemExit, match="constant"):
        enhance(str(folder), str(tmp_path / "out"), on_error="stop")
    assert not list((tmp_path / "out").glob("*thick*"))


def test_samples_write_an_uncertainty_map_and_the_seed_decides(folder, tmp_path):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        enhance(str(folder / "good_T1w.nii.gz"), str(tmp_path / name), samples=2, steps=2, seed=seed)
        spread = nib.load(tmp_path / name / "good_T1w_desc-uncertainty.nii.gz")
        assert spread.get_fdata().max() > 0
        results.append(spread.get_fdata())
    assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


def test_one_step_writes_the_uncertainty_that_the_network_predicts(folder, tmp_path):
    source = str(folder / "good_T1w.nii.gz")
    enhance(source, str(tmp_path / "a"), save_uncertainty="true")
    enhance(source, str(tmp_path / "b"))
    spread, result, plain = (
        nib.load(tmp_path / name)
        for name in (
            "a/good_T1w_desc-uncertainty.nii.gz",
            "a/good_T1w_desc-superres.nii.gz",
            "b/good_T1w_desc-superres.nii.gz",
        )
    )
    assert spread.shape == result.shape and np.allclose(spread.affine, result.affine)
    assert np.allclose(result.get_fdata(), plain.get_fdata(), rtol=1e-3, atol=1e-2)
    assert spread.get_fdata().min() > 0 and not (tmp_path / "b" / "good_T1w_desc-uncertainty.nii.gz").exists()


def test_the_tissue_map_lies_on_the_result_and_the_sidecar_names_its_numbers(folder, tmp_path):
    enhance(str(folder / "good_T1w.nii.gz"), str(tmp_path), contrast="input", save_tissue="true")
    tissue, result = (nib.load(tmp_path / f"good_T1w_desc-{d}.nii.gz") for d in ("tissue", "superres"))
    assert tissue.shape == result.shape and np.allclose(tissue.affine, result.affine)
    assert tissue.get_data_dtype() == np.uint8 and int(np.asarray(tissue.dataobj).max()) < len(TISSUES)
    sidecar = json.loads((tmp_path / "good_T1w_desc-superres.json").read_text())
    assert list(sidecar["Tissue"].values()) == list(TISSUES) and sidecar["Options"]["save_tissue"] is True


@pytest.mark.parametrize("contrast", ["7T", "input"])
def test_what_is_no_head_comes_out_no_wilder_than_it_went_in(tmp_path, contrast):
    axes = np.meshgrid(*[np.linspace(-1.2, 1.2, 52)] * 3, indexing="ij")
    radius, noise = np.sqrt(sum(a**2 for a in axes)), np.random.default_rng(0).random((52, 52, 52))
    volumes = {
        "ball": 500.0 * (radius < 1),
        "balls": 300.0 * (radius < 1) + 400.0 * (radius < 0.6),
        "cube": 500.0 * (np.abs(axes).max(0) < 0.9),
        "head": head((52, 56, 48)),
    }
    for name, volume in volumes.items():
        volume = (volume + noise if name != "head" else volume).astype(np.float32)
        enhance(str(save(tmp_path / f"{name}_T1w.nii.gz", volume)), str(tmp_path / "out"), contrast=contrast)
        result = nib.load(tmp_path / "out" / f"{name}_T1w_desc-superres.nii.gz").get_fdata()
        assert -volume.max() < result.min() and result.max() < 2 * volume.max(), name


def test_little_memory_means_tiles_and_nearly_the_same_result(tmp_path):
    source = save(tmp_path / "a_T1w.nii.gz", head((60, 60, 60)))
    whole, tiled = tmp_path / "whole", tmp_path / "tiled"
    enhance(str(source), str(whole))
    enhance(str(source), str(tiled), max_memory="64MB")
    one, two = (nib.load(d / "a_T1w_desc-superres.nii.gz").get_fdata() for d in (whole, tiled))
    assert not np.array_equal(one, two) and np.abs(one - two).max() < 0.03 * np.ptp(one)


def _datatype_code(path):
    save(path, head((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[70:72] = (9999).to_bytes(2, "little")
    path.write_bytes(content)


def _absurd_dimensions(path):
    save(path, head((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[42:48] = (32000).to_bytes(2, "little") * 3
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such file or folder"),
        (lambda p: p.mkdir(), "no volume in this folder"),
        (lambda p: p.write_text("text"), "cannot be read as an image"),
        (lambda p: p.touch(), "the file is empty"),
        (lambda p: save(p, np.full((20, 20, 20), np.inf, np.float32)), "NaN or Inf"),
        (lambda p: save(p, np.ones((20, 20, 20), np.float32)), "same value"),
        (lambda p: save(p, head((20, 20, 1))[..., 0]), "2 axes"),
        (lambda p: save(p, np.stack([head((20, 20, 20))] * 2, -1)), "4 axes"),
        (lambda p: save(p, head((20, 20, 12))), "at least 16"),
        (lambda p: save(p, head((20, 20, 20)), np.diag([30.0, 1, 1, 1])), "outside 0.1 to 15"),
        (lambda p: save(p, head((20, 20, 20)), np.diag([0.05, 0.05, 0.05, 1])), "outside 0.1 to 15"),
        (_datatype_code, "cannot be read as an image|unknown type"),
        (_absurd_dimensions, "header claims 32000 x 32000 x 32000 voxels"),
    ],
)
def test_bad_input_ends_the_job_with_one_line_and_no_file(tmp_path, make, words):
    path, out = tmp_path / "bad_T1w.nii", tmp_path / "out"
    make(path)
    with pytest.raises(SystemExit, match=words) as ended:
        enhance(str(path), str(out))
    message = str(ended.value)
    assert message.startswith("error: ") and "bad_T1w.nii" in message and "\n" not in message
    assert not out.exists() or not list(out.iterdir())


def test_results_and_hidden_files_of_an_earlier_run_are_no_input(tmp_path):
    save(tmp_path / "a_T1w.nii.gz", head((20, 20, 20)))
    for name in ("._a_T1w.nii.gz", ".77.a_T1w_desc-uncertainty.nii.gz"):
        (tmp_path / name).touch()
    enhance(str(tmp_path), str(tmp_path), samples=2, steps=2)
    names = sorted(p.name for p in tmp_path.iterdir())
    enhance(str(tmp_path), str(tmp_path), samples=2, steps=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert "a_T1w_desc-uncertainty.nii.gz" in names


def test_two_inputs_with_one_result_are_refused(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        save(tmp_path / name, head((20, 20, 20)))
    with pytest.raises(SystemExit, match="would both become a_desc-superres.nii.gz"):
        enhance(str(tmp_path), str(tmp_path / "out"))


def test_what_can_be_refused_early_is(tmp_path):
    save(tmp_path / "a.nii", head((20, 20, 20)))
    source, weights = str(tmp_path / "a.nii"), tmp_path / "w.pt"
    torch.save({}, weights)
    (tmp_path / "file").write_text("version https://git-lfs")
    for arguments, words in (
        ((None, "out", "w", None), "--input is missing"),
        ((source, "out", str(tmp_path / "gone.pt"), None), "the weights belong there"),
        ((source, "out", str(tmp_path / "file"), None), "these are not weights"),
        ((source, "out", str(weights), "abacus"), "--device abacus: allowed"),
        ((source, "out", str(weights), True), "--device True: allowed"),
        ((source, str(tmp_path / "file" / "x"), str(weights), "cpu"), "cannot write here"),
    ):
        with pytest.raises(SystemExit, match=words):
            preflight(*arguments)
