import json

import nibabel as nib
import numpy as np
import pytest
import torch
from data import phantom_map, save

from bundle.errors import InputError
from bundle.pairs import preflight, read_pairs
from bundle.simulate import simulate
from bundle.simulation.tissues import CLASSES

SECTIONS = ("training", "validation")
KINDS = ("low", "high", "tissue", "bias")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    array, affine = phantom_map()
    return save(tmp_path_factory.mktemp("maps") / "head.nii.gz", array.astype(np.int16), affine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "PD"}, "allowed are T1w, T2w"),
        ({"factor": 3}, "--factor 3: allowed are three numbers"),
        ({"factor": (2, 2, 0.5)}, "three numbers from 1 to 12"),
        ({"seed": "a"}, "--seed 'a'"),
        ({"low_field": 0.3}, "--low_field 0.3: allowed is a number from 1.5 to 7"),
        ({"high_field": "strong"}, "--high_field 'strong'"),
        ({"low_field": 3, "high_field": 2}, "above the high field"),
        ({"warp": "no"}, "--warp 'no': allowed is true or false"),
        ({"high_spacing": 0.05}, "--high_spacing 0.05"),
    ],
)
def test_bad_options_are_refused(labels, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        simulate(str(labels), tmp_path / "out", **options)
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_degenerate_label_maps_are_refused(labels, tmp_path):
    array, affine = phantom_map()
    flawed = {
        "empty": (np.zeros_like(array), "0 voxels of cortical GM"),
        "unknown": (np.where(array == 3, 1234, array), r"labels \[1234\] are unknown"),
        "fractions": (array + 0.5 * (array > 0), "holds fractions"),
        "thin": (array[:10], "at least 16 voxels"),
    }
    for name, (content, message) in flawed.items():
        path = save(tmp_path / f"{name}.nii.gz", content.astype(np.float32), affine)
        with pytest.raises(InputError, match=message):
            simulate(str(path), tmp_path / "out")


@pytest.mark.parametrize("modality", ["T1w", "T2w"])
def test_a_pair_covers_one_field_of_view_and_tells_how_it_was_made(labels, tmp_path, modality):
    (sidecar,) = simulate(str(labels), tmp_path, modality, factor=(1, 2, 3), seed=4)
    images = {kind: nib.load(tmp_path / f"head_desc-{kind}.nii.gz") for kind in KINDS}
    assert images["high"].shape == images["tissue"].shape == (88, 104, 92)
    assert images["low"].shape == images["bias"].shape == (88, 52, 31)
    edges = {k: (i.affine @ [-0.5, -0.5, -0.5, 1], i.affine @ [*np.array(i.shape) - 0.5, 1]) for k, i in images.items()}
    assert np.allclose(edges["low"], edges["high"], atol=1e-4)  # outer voxel edges coincide
    record = json.loads(sidecar.read_text())
    assert record["Parameters"]["low_field"] == 1.5 and record["Factor"] == [1, 2, 3]
    tissue, high = images["tissue"].get_fdata(), images["high"].get_fdata()
    inner = {name: np.median(high[tissue == CLASSES.index(name)]) for name in ("WM", "CSF")}
    assert inner["WM"] == pytest.approx(1000, rel=0.1)
    assert (inner["CSF"] < 600) if modality == "T1w" else (inner["CSF"] > 1300)
    assert 0.3 < images["bias"].get_fdata().min() < images["bias"].get_fdata().max() < 3


def test_the_same_seed_gives_the_same_bytes_and_another_another_head(labels, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(str(labels), tmp_path / folder, seed=seed)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 6
    for name in files:
        if name == "pairs.json":
            continue
        first, again, other = ((tmp_path / f / name).read_bytes() for f in "abc")
        assert first == again != other


def test_the_pairs_of_a_folder_are_listed_for_training(tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.simulate.brain_phantom", lambda seed: torch.from_numpy(phantom_map(seed)[0]))
    for seed in (1, 2, 3):
        simulate("phantom", tmp_path, "T2w", seed=seed)
    training, validation = (read_pairs(str(tmp_path / "pairs.json"), s, str(tmp_path)) for s in SECTIONS)
    assert [item["subject"] for item in training] == ["phantom-1", "phantom-2"] and len(validation) == 1
    preflight(str(tmp_path / "pairs.json"), str(tmp_path))  # every file is there
    assert validation[0]["modality"] == "T2w" and validation[0]["contrast"] == "7T"


def test_a_finer_target_keeps_the_field_of_view(labels, tmp_path):
    simulate(str(labels), tmp_path, high_spacing=1.5, factor=(2, 2, 2))
    high = nib.load(tmp_path / "head_desc-high.nii.gz")
    assert high.shape == (117, 139, 123) and np.allclose(high.header.get_zooms(), 1.5, atol=0.01)


def test_flips_keep_label_pairs(labels, tmp_path):
    """A mirrored map is the same head mirrored: left and right numbers mean the same tissue."""
    array, affine = phantom_map()
    for name, content in (("head", array), ("mirrored", array[::-1])):
        (tmp_path / name).mkdir()
        simulate(str(save(tmp_path / name / "x.nii.gz", content.astype(np.int16), affine)), tmp_path / name, warp=False)
    plain, mirrored = (nib.load(tmp_path / n / "x_desc-tissue.nii.gz").get_fdata() for n in ("head", "mirrored"))
    brain = np.isin(plain, [CLASSES.index(n) for n in ("WM", "cortical GM", "deep GM", "CSF")])
    assert (plain == mirrored[::-1])[brain].mean() > 0.99
