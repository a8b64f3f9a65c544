import json

import nibabel as nib
import numpy as np
import pytest
import torch
from data import head, save, small_network

from bundle import job
from bundle.errors import InputError
from bundle.explain import explain, explain_tensor
from bundle.inferer import SuperResolutionInferer
from bundle.networks.experts import EXPERTS
from bundle.networks.weights import write_weights

pytest.importorskip("matplotlib")


def test_a_network_without_experts_is_refused():
    network = small_network()
    with pytest.raises(InputError, match="has no experts"):
        explain_tensor(torch.rand(1, 1, 16, 16, 16), network, network.default_condition[None])


@pytest.mark.parametrize("tile", [None, 96])
def test_the_changes_of_the_experts_add_up_to_that_of_the_mixture(tile):
    network, image = small_network(experts=True, modulation=True), torch.rand(1, 1, 28, 120, 24)
    condition = network.default_condition[None]
    found = explain_tensor(image, network, condition, amp=False, tile=tile)
    with torch.no_grad():
        result = SuperResolutionInferer(amp=False)(image, network, condition)
    assert found.shares.shape == (1, 3, 28, 120, 24)
    assert torch.allclose(found.shares.sum(1), torch.ones(1, 28, 120, 24), atol=1e-5)
    tolerance = 1e-5 if tile is None else 0.1 * float((result - image).std())
    error = (image[:, 0] + found.differences.sum(1) - result[:, 0]).abs()
    assert error.quantile(0.99) < tolerance and (result - image).std() > 1e-4


def test_maps_lie_where_the_volume_lies_and_the_picture_is_there(tmp_path):
    affine = np.array([[0, -1.5, 0, 20], [1.5, 0, 0, -10], [0, 0, 1.5, 5], [0, 0, 0, 1]])
    source = save(tmp_path / "sub-01_T1w.nii.gz", head((28, 32, 24)), affine)
    network = small_network(experts=True, modulation=True)
    write_weights(tmp_path / "w.pt", network.state_dict())
    report = explain(str(source), tmp_path, network, tmp_path / "w.pt")
    names = [f"{kind}{n}" for kind in ("gate", "difference") for n in ("CentrumSemiovale", "Cortex", "Junction")]
    maps = {name: nib.load(tmp_path / f"sub-01_desc-{name}_T1w.nii.gz") for name in names}
    for image in maps.values():
        assert image.shape == (56, 64, 48) and nib.aff2axcodes(image.affine) == nib.aff2axcodes(affine)
        corner = image.affine @ [-0.5, -0.5, -0.5, 1]
        assert np.allclose(corner, affine @ [-0.5, -0.5, -0.5, 1])  # outer voxel edges coincide
    total = sum(maps[name].get_fdata() for name in names[:3])
    assert np.allclose(total, 1, atol=1e-2)
    assert (tmp_path / "sub-01_desc-experts_T1w.png").stat().st_size > 20_000
    saved = json.loads((tmp_path / "sub-01_desc-experts_T1w.json").read_text())
    assert saved == json.loads(json.dumps(report)) and list(saved["MeanShare"]) == list(EXPERTS)
    assert np.allclose(np.diag(saved["CorrelationOfDifferences"]), 1)
    assert not list(tmp_path.glob(".*"))


def test_differences_are_in_the_units_of_the_input(tmp_path):
    network = small_network(experts=True)
    write_weights(tmp_path / "w.pt", network.state_dict())
    values = []
    for gain in (1, 10):
        source = save(tmp_path / f"x{gain}.nii.gz", gain * head((24, 24, 20)))
        explain(str(source), tmp_path, network, tmp_path / "w.pt", modality="T1w")
        values.append(nib.load(tmp_path / f"x{gain}_desc-differenceCortex.nii.gz").get_fdata())
    assert np.abs(values[0]).max() > 0.1 and np.allclose(
        values[1], 10 * values[0], rtol=0.05, atol=0.02 * values[1].max()
    )


def test_bad_volumes_are_refused_and_leave_nothing(tmp_path):
    network, out = small_network(experts=True), tmp_path / "out"
    write_weights(tmp_path / "w.pt", network.state_dict())
    volume = head((20, 20, 20))
    volume[0, 0, 0] = np.nan
    source = save(tmp_path / "nan.nii.gz", volume)
    out.mkdir()
    with pytest.raises(InputError, match="nan.nii.gz: 1 voxels are NaN or Inf"):
        explain(str(source), out, network, tmp_path / "w.pt")
    with pytest.raises(InputError, match="explain takes one volume"):
        job.explain(str(tmp_path), out, "moe")
    assert not list(out.iterdir())
