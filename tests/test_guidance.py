import json

import nibabel as nib
import numpy as np
import pytest
import torch
from data import coil_file, head, save
from monai.data import MetaTensor

from bundle.bias import BiasEstimator
from bundle.engines.enhance import preflight
from bundle.errors import InputError
from bundle.geometry import Grid
from bundle.gradients import GradientField, read_coefficients
from bundle.guidance import CorrectScand, GuidanceMapsd, acquisition_of, image_type, judge_distortion
from bundle.saving import SaveResultd
from bundle.transforms import LoadVolumed, ToTargetGridd
from bundle.unwarping import apply_field, unwarping_field

FAST = BiasEstimator(step=8.0, iterations=(10,))


def scan(folder, name="scan_T1w.nii.gz", codes=(1, 1), **sidecar):
    """A small head of 5 mm voxels around the isocentre, with a JSON of these fields beside it."""
    shape = (40, 44, 36)
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [-2.5 * (n - 1) for n in shape]
    path = save(folder / name, head(shape), affine, codes)
    if sidecar:
        path.with_name(name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def correct(path, **options):
    return CorrectScand("image", **options)(LoadVolumed("image")({"image": str(path)}))


def plain(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


def test_image_types_are_read_as_dicom_bids_and_text_write_them():
    assert image_type({"ImageType": ["ORIGINAL", "PRIMARY", "M", "dis2d"]})[-1] == "DIS2D"
    assert image_type({"ImageType": "ORIGINAL\\PRIMARY\\M\\ND"})[-1] == "ND"
    assert image_type({}) == () and image_type({"ImageType": None}) == ()


def test_the_acquisition_comes_from_the_meta_data_or_the_json_beside_the_file(tmp_path):
    path = scan(tmp_path, ImageType=["ORIGINAL", "ND"])
    assert acquisition_of(plain(path), path)["ImageType"] == ["ORIGINAL", "ND"]
    of_dicom = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"acquisition": {"ImageType": ["DIS3D"]}})
    assert acquisition_of(of_dicom, path) == {"ImageType": ["DIS3D"]}  # it goes before the JSON
    for content in ("[1]", "{", ""):
        (tmp_path / "scan_T1w.json").write_text(content)
        assert acquisition_of(plain(path), path) == {}


@pytest.mark.parametrize(
    ("kinds", "force", "unwarp", "words"),
    [
        (["ORIGINAL", "ND"], False, True, None),
        (["ORIGINAL", "DIS3D"], False, False, "has unwarped this volume; not done again"),
        (["ORIGINAL", "DIS2D"], False, False, "in its slices, though not across them"),
        (["ORIGINAL", "DIS2D"], True, True, "done again, as --force_unwarp asks"),
        (["ORIGINAL"], False, True, "does not say"),
        (["ORIGINAL"], True, True, None),
    ],
)
def test_a_volume_is_never_unwarped_twice_unless_forced(kinds, force, unwarp, words):
    decision, notes = judge_distortion({"ImageType": kinds}, force)
    assert decision is unwarp
    assert (words is None and notes == []) or words in notes[0]


def test_other_positions_than_head_first_on_the_back_are_refused(tmp_path):
    path = scan(tmp_path, ImageType=["ND"], PatientPosition="FFS")
    with pytest.raises(InputError, match="scan_T1w.nii.gz: PatientPosition FFS"):
        correct(path, coefficients=str(coil_file(tmp_path)))


def test_a_volume_is_unwarped_around_the_origin_of_its_affine(tmp_path):
    path, coil = scan(tmp_path, ImageType=["ND"]), coil_file(tmp_path)
    item, before = correct(path, coefficients=str(coil)), plain(path)
    field = unwarping_field(
        GradientField(read_coefficients(coil)), Grid(tuple(before.shape[1:]), before.affine.numpy())
    )
    assert torch.allclose(item["image"].as_tensor(), apply_field(before.as_tensor(), field), atol=1e-3)
    assert float((item["image"] - before).abs().max()) > 50
    assert int(item["unwarp"]) == 1 and item["scan_notes"] == ""


@pytest.mark.parametrize("options", [{}, {"done": True}, {"guide": True}], ids=str)
def test_a_volume_stays_as_it_is_without_coefficients_when_done_before_and_when_a_network_is_guided(options, tmp_path):
    options = dict(options)
    path = scan(tmp_path, ImageType=["DIS3D" if options.pop("done", False) else "ND"])
    if options or "DIS3D" in (tmp_path / "scan_T1w.json").read_text():
        options["coefficients"] = str(coil_file(tmp_path))
    item = correct(path, **options)
    assert torch.equal(item["image"].as_tensor(), plain(path).as_tensor())
    assert int(item["unwarp"]) == int("guide" in options)


def test_what_is_not_known_of_a_scan_stands_in_the_sidecar(tmp_path):
    path = scan(tmp_path, codes=(0, 4))
    item = ToTargetGridd("image")(correct(path, coefficients=str(coil_file(tmp_path))))
    (tmp_path / "w.pt").write_bytes(b"w")
    warnings = SaveResultd("image", str(tmp_path), {}, str(tmp_path / "w.pt")).sidecar(item)["Warnings"]
    assert any("ImageType does not say" in w for w in warnings)
    assert any("the affine has code 4" in w for w in warnings)


def test_shading_is_removed_on_request(tmp_path):
    path = scan(tmp_path)
    image = nib.load(path)
    ramp = np.exp(np.linspace(-0.6, 0.6, image.shape[0]))[:, None, None]
    shaded = save(tmp_path / "shaded_T1w.nii.gz", (image.get_fdata() * ramp).astype(np.float32), image.affine)
    bright = image.get_fdata() > 300

    def slope(volume):
        change = np.log(np.maximum(volume, 1) / np.maximum(image.get_fdata(), 1))
        x = np.broadcast_to(np.linspace(-0.6, 0.6, image.shape[0])[:, None, None], change.shape)
        return np.polyfit(x[bright], change[bright], 1)[0]

    assert slope(plain(shaded).numpy()[0]) == pytest.approx(1, abs=0.01)
    assert slope(correct(shaded, bias=True)["image"].numpy()[0]) < 0.5


def test_guidance_maps_say_what_a_correction_would_change(tmp_path):
    path, coil = scan(tmp_path, ImageType=["ND"]), str(coil_file(tmp_path))
    item = ToTargetGridd("image")(correct(path, coefficients=coil, guide=True))
    source = item["source"].as_tensor().clone()
    guided = GuidanceMapsd("image", coil, FAST)(item)
    correction, log_bias, log_jacobian = guided["fields"].as_tensor()
    assert guided["fields"].shape[1:] == guided["image"].shape[1:] == (80, 88, 72)
    assert torch.equal(guided["image"].as_tensor(), item["image"].as_tensor())
    assert float(correction.abs().max()) > 0.1 and float(log_jacobian.abs().max()) > 0.02
    assert float(log_bias.std()) > 0 and not torch.allclose(guided["source"].as_tensor(), source, atol=0.05)
    without = GuidanceMapsd("image", None, FAST)(item)["fields"].as_tensor()
    assert float(without[2].abs().max()) == 0
    assert torch.allclose(without[0], item["image"].as_tensor()[0] * (torch.exp(-without[1]) - 1), atol=1e-5)


def test_bad_coefficients_stop_the_job_before_anything_is_made(tmp_path):
    path, coil = scan(tmp_path), coil_file(tmp_path)
    coil.write_text(coil.read_text().replace("A( 3, 0)", "Q( 3, 0)"))
    (tmp_path / "w.pt").write_bytes(b"")
    torch.save({}, tmp_path / "w.pt")
    with pytest.raises(SystemExit, match="coil.grad, line 7: .*a term reads"):
        preflight(
            str(path), str(tmp_path / "out"), str(tmp_path / "w.pt"), "cpu", True, {"gradient_coefficients": str(coil)}
        )
    assert not (tmp_path / "out").exists()
