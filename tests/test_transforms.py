import json

import nibabel as nib
import numpy as np
import pytest
import torch
from data import centre_of_mass, head, save
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, Orientationd

from bundle.errors import InputError
from bundle.inferer import WIDTH_RULE
from bundle.intensity import Intensity
from bundle.saving import SaveResultd, factor_warnings
from bundle.simulation.acquisition import Acquisition
from bundle.transforms import (
    LoadVolumed,
    ProjectBackd,
    RestoreIntensityd,
    RestoreOrientationd,
    ToTargetGridd,
)


def _there_and_back(path, folder, spacing=None, channels=1):
    """The main job with a network that does nothing."""
    weights = folder / "weights.pt"
    weights.write_bytes(b"w")
    there = Compose(
        [LoadVolumed("image"), Orientationd("image", axcodes="RAS", labels=None), ToTargetGridd("image", spacing)]
    )
    item = there({"image": str(path)})
    image = item["image"]
    item["pred"] = image.repeat(channels, 1, 1, 1)
    back = [ProjectBackd("pred"), RestoreIntensityd("pred"), RestoreOrientationd("pred")]
    return Compose([*back, SaveResultd("pred", str(folder), {"samples": channels}, str(weights))])(item)


@settings(max_examples=15, deadline=None)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    st.tuples(*[st.floats(0.8, 1.5)] * 3),
)
def test_world_space_orientation_and_units_are_kept_for_any_affine(tmp_path_factory, order, flips, angles, spacing):
    folder = tmp_path_factory.mktemp("case")
    affine = np.eye(4)
    affine[:3, :3] = (nib.eulerangles.euler2mat(*angles) * (np.array(spacing) * flips))[:, list(order)]
    affine[:3, 3] = (10, -20, 30)
    path = save(folder / "scan.nii.gz", head((24, 30, 20)) * 3 + 100, affine, (1, 2))
    result = _there_and_back(path, folder)["result"]
    source, target = nib.load(path), nib.load(result)
    assert nib.aff2axcodes(source.affine) == nib.aff2axcodes(target.affine)
    assert np.allclose(centre_of_mass(path), centre_of_mass(result), atol=0.25)
    edges = [image.affine @ [*(np.array(image.shape) - 0.5), 1] for image in (source, target)]
    assert np.allclose(*edges, atol=1e-4)
    assert np.allclose(source.affine @ [-0.5, -0.5, -0.5, 1], target.affine @ [-0.5, -0.5, -0.5, 1], atol=1e-4)
    assert target.get_fdata().mean() == pytest.approx(source.get_fdata().mean(), rel=0.02)
    assert (int(target.header["qform_code"]), int(target.header["sform_code"])) == (1, 2)


def test_the_target_spacing_belongs_to_the_axes_of_the_file(tmp_path):
    affine = np.array([[0, 0, 2.0, 0], [-1.0, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "scan.nii.gz", head((24, 20, 18)), affine)
    result = nib.load(_there_and_back(path, tmp_path, (0.5, 1.5, 1.0))["result"])
    assert result.shape == (48, 20, 36)
    assert np.allclose(result.header.get_zooms(), (0.5, 1.5, 1.0))


def test_axes_at_45_degrees_come_back_as_they_were(tmp_path):
    half = np.sqrt(0.5)
    affine = np.array([[half, -half, 0, 0], [half, half, 0, 0], [0, 0, -1.3, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "scan.nii.gz", head((24, 30, 20)), affine)
    result = nib.load(_there_and_back(path, tmp_path)["result"])
    assert result.shape == (48, 60, 40)
    assert np.allclose(result.affine[:3, :3] * 2, affine[:3, :3], atol=1e-6)


def test_the_spread_is_saved_as_uncertainty_in_units_of_the_input(tmp_path):
    path = save(tmp_path / "sub-1_T1w.nii.gz", head() * 10)
    item = _there_and_back(path, tmp_path, channels=2)
    image = nib.load(tmp_path / "sub-1_desc-superres_T1w.nii.gz").get_fdata()
    spread = nib.load(tmp_path / "sub-1_desc-uncertainty_T1w.nii.gz").get_fdata()
    assert spread.shape == image.shape and spread.max() > 1000
    assert item["result"].endswith("sub-1_desc-superres_T1w.nii.gz")


def test_the_sidecar_tells_how_the_result_came_about(tmp_path):
    path = save(tmp_path / "scan_T2w.nii.gz", head((40, 40, 20)), np.diag([0.5, 0.5, 5.0, 1]))
    _there_and_back(path, tmp_path, (0.5, 0.5, 0.5))
    sidecar = json.loads((tmp_path / "scan_T2w_desc-superres.json").read_text())
    assert sidecar["Factors"] == [1, 1, 10] and sidecar["Modality"] == "T2w" and sidecar["Options"] == {"samples": 1}
    assert sidecar["GeneratedBy"]["SHA256"].startswith("50e721e49c013f00")
    assert "beyond those of training" in sidecar["Warnings"][0]


def test_the_sidecar_speaks_of_the_axes_of_the_file(tmp_path):
    affine = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])  # sagittal slices
    path = save(tmp_path / "scan_T1w.nii.gz", head((40, 40, 18)), affine)
    _there_and_back(path, tmp_path)
    sidecar = json.loads((tmp_path / "scan_T1w_desc-superres.json").read_text())
    assert sidecar["SourceSpacing"] == [1, 1, 3] and sidecar["Factors"] == [1, 1, 3] and sidecar["Warnings"] == []


def test_factors_inside_the_training_range_give_no_warning():
    assert all(factor_warnings(f) == [] for f in ((1, 1, 8), (4, 4, 4), (2, 2, 8)))
    assert all(factor_warnings(f) for f in ((5, 5, 1), (1, 1, 9), (4, 4, 8)))


def test_another_contrast_is_not_projected_back(tmp_path):
    path = save(tmp_path / "scan.nii.gz", head())
    item = ToTargetGridd("image")(LoadVolumed("image")({"image": str(path)}))
    item["pred"] = item["image"] * 0.5
    kept = ProjectBackd("pred")({**item, "pred": item["pred"].clone()})["pred"]
    assert float((kept - item["pred"]).abs().max()) > 0.1
    item["condition"] = item["condition"].clone()
    item["condition"][0] = 1
    assert torch.equal(ProjectBackd("pred")({**item, "pred": item["pred"].clone()})["pred"], item["pred"])


def test_the_width_is_looked_for_where_the_network_has_a_rule_for_it(tmp_path):
    truth = torch.from_numpy(head((48, 48, 48)))
    low = Acquisition(width=(0.6,) * 3)(truth[None, None], (24, 24, 24))[0, 0]
    path = save(tmp_path / "scan.nii.gz", low.numpy())
    item = ToTargetGridd("image")(LoadVolumed("image")({"image": str(path)}))
    offset, scale = item["intensity"].tolist()
    for rule, width in (((0.82, 5.0), 0.6), ((0.0, 0.0), 1.0)):
        pred = item["image"].clone()
        pred[:] = Intensity(offset, scale).normalise(truth[None])
        pred.meta[WIDTH_RULE] = torch.tensor(rule)
        assert ProjectBackd("pred")({**item, "pred": pred})["width"] == width


def test_7t_contrast_is_for_t1w_and_t2w_and_says_where_it_comes_from(tmp_path):
    for name, contrast in (("a_T1w", "7T"), ("a_FLAIR", "input")):
        path = save(tmp_path / f"{name}.nii.gz", head())
        item = ToTargetGridd("image", contrast="7T")(LoadVolumed("image")({"image": str(path)}))
        assert item["condition"][0] == float(contrast == "7T")
        (tmp_path / "w.pt").write_bytes(b"w")
        sidecar = SaveResultd("image", str(tmp_path), {"contrast": "7T"}, str(tmp_path / "w.pt")).sidecar(item)
        assert sidecar["Contrast"] == contrast
        assert ("simulated pairs" in sidecar["Description"]) == (contrast == "7T")
        assert any("the input's was kept" in w for w in sidecar["Warnings"]) == (contrast == "input")


def test_axes_finer_than_the_target_are_reduced_and_the_others_sharpened(tmp_path):
    path = save(tmp_path / "scan.nii.gz", head((60, 60, 20)), np.diag([0.4, 0.4, 2.0, 1]))
    result = nib.load(_there_and_back(path, tmp_path, (0.5, 0.5, 0.5))["result"])
    assert result.shape == (48, 48, 80) and np.allclose(result.header.get_zooms(), 0.5)
    assert np.allclose(centre_of_mass(path), centre_of_mass(tmp_path / "scan_desc-superres.nii.gz"), atol=0.2)


@pytest.mark.parametrize(
    ("spacing", "words"), [((2, 1, 1), "nowhere finer"), ((0.1, 0.1, 0.1), "larger --target_spacing")]
)
def test_targets_that_make_no_sense_are_refused(tmp_path, spacing, words, monkeypatch):
    monkeypatch.setattr("bundle.transforms.free_memory", lambda device: 2**28)
    path = save(tmp_path / "scan.nii.gz", head((24, 24, 20)))
    with pytest.raises(InputError, match=words):
        ToTargetGridd("image", spacing)(LoadVolumed("image")({"image": str(path)}))
