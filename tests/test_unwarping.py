import numpy as np
import pytest
import torch
from data import SHARED, coil_file

from bundle.geometry import Grid
from bundle.gradients import GradientField, read_coefficients
from bundle.unwarping import VoxelField, apply_field, unwarping_field, warping_field

DUMMY = SHARED / "data" / "gradients" / "gradunwarp_coeffs_dummy.grad"


def oblique(shape=(52, 60, 48), spacing=(3.0, 2.5, 3.5)):
    """A grid of 3 mm around the isocentre, turned by 20 degrees, its first axis to the left."""
    turn, (c, s) = np.eye(3), (np.cos(0.35), np.sin(0.35))
    turn[:2, :2] = [[c, -s], [s, c]]
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([-1, 1, 1]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def centres(grid):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"))
    return np.einsum("ij,j...->i...", grid.affine[:3, :3], index) + grid.affine[:3, 3][:, None, None, None]


@pytest.mark.parametrize("source", ["own", "shared"])
def test_warp_and_unwarp_are_the_identity_to_a_tenth_of_a_voxel(source, tmp_path):
    if source == "shared" and not DUMMY.exists():
        pytest.skip("the made-up coil of the shared data is not here")
    field, grid = GradientField(read_coefficients(DUMMY if source == "shared" else coil_file(tmp_path))), oblique()
    there, back = unwarping_field(field, grid), warping_field(field, grid)
    reached = torch.stack([apply_field(d[None], VoxelField(there.displacement, torch.zeros(1)))[0] for d in back[0]])
    error = (there.displacement + reached).norm(dim=0).numpy()
    distance = np.sqrt((centres(grid) ** 2).sum(0))
    inside = distance < min(0.9 * field.valid_radius, 70)  # what it refers to must lie in the volume, too
    assert inside.mean() > 0.15
    assert error[inside].max() < 0.1
    total = there.log_jacobian + apply_field(back.log_jacobian, VoxelField(there.displacement, torch.zeros(1)))
    assert total[0].numpy()[inside] == pytest.approx(0, abs=0.01)


def test_a_volume_comes_back_with_its_intensity(tmp_path):
    field, grid = GradientField(read_coefficients(coil_file(tmp_path))), oblique()
    radius = np.sqrt((centres(grid) ** 2).sum(0))
    volume = torch.from_numpy((1 + np.cos(radius / 8)) / (1 + np.exp((radius - 65) / 4))).float()[None]
    warped = apply_field(volume, warping_field(field, grid))
    again = apply_field(warped, unwarping_field(field, grid))
    assert float((warped - volume).abs().max()) > 0.1 and float((again - volume).abs().max()) < 0.05
    assert float(warped.sum()) == pytest.approx(float(volume.sum()), rel=2e-3)  # the signal is only moved


def test_unwarping_brings_a_point_to_where_it_lies_on_the_patients_own_axes(tmp_path):
    field, grid = GradientField(read_coefficients(coil_file(tmp_path))), oblique()
    lies = np.array([10.0, -20.0, 60.0])  # right, anterior, superior
    shown = lies + np.array([-1, 1, -1]) * field.displacement(np.array([-1, 1, -1]) * lies)
    assert np.linalg.norm(shown - lies) > 0.3
    blob = np.exp(-((centres(grid) - shown[:, None, None, None]) ** 2).sum(0) / (2 * 6**2))
    result = apply_field(torch.from_numpy(blob).float()[None], unwarping_field(field, grid))[0].numpy()
    found = (result * centres(grid)).sum((1, 2, 3)) / result.sum()
    assert np.linalg.norm(found - lies) < 0.15


def test_linear_sampling_agrees_with_cubic_on_a_smooth_volume(tmp_path):
    field, grid = GradientField(read_coefficients(coil_file(tmp_path))), oblique()
    smooth = torch.from_numpy(np.cos(centres(grid) / 30).sum(0)).float()[None]
    unwarp = unwarping_field(field, grid)
    assert torch.allclose(apply_field(smooth, unwarp, 1), apply_field(smooth, unwarp, 3), atol=0.02)


def test_the_isocentre_may_lie_elsewhere_and_what_is_too_far_is_counted(tmp_path):
    field, grid = GradientField(read_coefficients(coil_file(tmp_path))), oblique()
    near, far = unwarping_field(field, grid), unwarping_field(field, grid, isocentre=(0, 0, 300))
    assert near.outside == 0 and far.outside > 0.5
    assert not torch.allclose(near.displacement, far.displacement, atol=0.5)
