"""Output and input lie at the same place in the world, for every orientation that a file can have."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from data import head, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bundle.errors import InputError
from bundle.geometry import check_grid
from bundle.io import read_volume, write_volume
from bundle.job import enhance
from bundle.transforms import LoadVolumed, RestoreOrientationd, ToTargetGridd

SHAPE, SPACING = (20, 23, 18), np.array([1.1, 0.9, 1.3])
VOLUME = ndimage.gaussian_filter(head(SHAPE, seed=3), 0.8)


def _orientations():
    """The 48 matrices that swap and flip axes."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            yield matrix


def _affine(axes, spacing=SPACING, origin=(-12.0, 7.5, 31.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, origin
    return affine


def _displacement(source, result):
    """Shift in source voxels between two NIfTI images in world space: Gauss-Newton on the squared difference."""
    volume = source.get_fdata()
    inner = np.stack(np.meshgrid(*(np.arange(3, n - 3) for n in volume.shape), indexing="ij"))
    reference = volume[tuple(inner)]
    blurred = ndimage.gaussian_filter(result.get_fdata(), 0.9)
    to_result = np.linalg.inv(result.affine) @ source.affine
    shift = np.zeros(3)
    for _ in range(6):
        moved = inner + shift[:, None, None, None]
        where = np.einsum("ij,jxyz->ixyz", to_result[:3, :3], moved) + to_result[:3, 3][:, None, None, None]
        sampled = ndimage.map_coordinates(blurred, where, order=3, mode="nearest")
        gradient = np.stack([g.ravel() for g in np.gradient(sampled)] + [sampled.ravel(), np.ones(sampled.size)], 1)
        step = np.linalg.lstsq(gradient, reference.ravel(), rcond=None)[0]
        shift = shift + step[:3]
    assert np.corrcoef(sampled.ravel(), reference.ravel())[0, 1] > 0.97
    return np.abs(shift).max()


def test_output_and_input_agree_in_the_world_over_48_orientations_and_20_obliques(tmp_path):
    """The whole job: corners of the field of view exactly, content to 0.05 voxels."""
    turns = Rotation.random(20, np.random.default_rng(0)).as_matrix()
    affines = [_affine(axes) for axes in (*_orientations(), *turns)]
    assert len(affines) == 68
    (tmp_path / "in").mkdir()
    for i, affine in enumerate(affines):
        save(tmp_path / "in" / f"{i:02d}_T1w.nii.gz", VOLUME, affine)
    enhance(str(tmp_path / "in"), str(tmp_path / "out"), contrast="input")
    shifts = []
    for i, affine in enumerate(affines):
        source = nib.load(tmp_path / "in" / f"{i:02d}_T1w.nii.gz")
        result = nib.load(tmp_path / "out" / f"{i:02d}_T1w_desc-superres.nii.gz")
        assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(affine)
        for corner in itertools.product((0, 1), repeat=3):
            ends = [affine @ [*(np.array(corner) * SHAPE - 0.5), 1]]
            ends.append(result.affine @ [*(np.array(corner) * result.shape - 0.5), 1])
            assert np.allclose(*ends, atol=1e-4), (i, corner)
        assert np.allclose(result.get_qform(), result.get_sform(), atol=1e-4)
        shifts.append(_displacement(source, result))
    assert max(shifts) < 0.05, np.round(shifts, 3)


def test_the_measure_sees_half_a_voxel(tmp_path):
    source = nib.Nifti1Image(VOLUME, _affine(np.eye(3)))
    moved = source.affine.copy()
    moved[:3, 3] += [0.5 * SPACING[0], 0, 0]
    assert _displacement(source, nib.Nifti1Image(VOLUME, moved)) == pytest.approx(0.5, abs=0.03)
    assert _displacement(source, source) < 0.01


axes = st.one_of(
    st.sampled_from(list(_orientations())),
    st.tuples(*[st.floats(-180, 180)] * 3, st.booleans()).map(
        lambda t: Rotation.from_euler("xyz", t[:3], degrees=True).as_matrix() * (-1 if t[3] else 1)
    ),
)
spacings = st.tuples(*[st.floats(0.3, 7)] * 3).map(np.array)
origins = st.tuples(*[st.floats(-500, 500)] * 3)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=axes, spacing=spacings, origin=origins, codes=st.tuples(*[st.integers(0, 4)] * 2))
def test_any_sound_header_is_read_and_written_back_where_it_was(tmp_path, axes, spacing, origin, codes):
    affine = _affine(axes, spacing, origin)
    volume = np.arange(16 * 17 * 18, dtype=np.float32).reshape(16, 17, 18)
    path = save(tmp_path / "a.nii", volume, affine, codes)
    read = read_volume(path)
    if codes != (0, 0):
        assert np.allclose(read.affine, affine, atol=2e-3) and np.array_equal(read.numpy()[0], volume)
    write_volume(tmp_path / "b.nii.gz", read.numpy()[0], read.affine.numpy(), tuple(read.meta["form_codes"].tolist()))
    again = read_volume(tmp_path / "b.nii.gz")
    assert np.allclose(again.affine, read.affine, atol=1e-4) and np.array_equal(again.numpy(), read.numpy())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    axes=axes,
    spacing=spacings,
    axis=st.permutations(range(3)),
    shear=st.floats(0.01, 0.8),
    sign=st.sampled_from([1, -1]),
)
def test_any_shear_is_refused_and_none_is_not(axes, spacing, axis, shear, sign):
    affine = _affine(axes, spacing)
    check_grid((16, 16, 16), affine, "a")
    skew = np.eye(4)
    skew[axis[0], axis[1]] = sign * shear * spacing[axis[1]] / spacing[axis[0]]
    with pytest.raises(InputError, match="sheared"):
        check_grid((16, 16, 16), affine @ skew, "a")


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=axes, spacing=st.tuples(*[st.floats(0.8, 4)] * 3).map(np.array))
def test_the_way_to_the_target_grid_and_back_keeps_the_field_of_view(tmp_path, axes, spacing):
    affine = _affine(axes, spacing)
    path = save(tmp_path / "a_T1w.nii", VOLUME, affine)
    from monai.transforms import Orientationd

    item = ToTargetGridd("image")(Orientationd("image", "RAS", labels=None)(LoadVolumed("image")({"image": str(path)})))
    result = RestoreOrientationd("image")(item)["image"]
    shape = torch.tensor(result.shape[1:])
    for corner in itertools.product((0, 1), repeat=3):
        ends = [affine @ [*(np.array(corner) * SHAPE - 0.5), 1]]
        ends.append(result.affine.numpy() @ [*(np.array(corner) * shape.numpy() - 0.5), 1])
        assert np.allclose(*ends, atol=1e-3)
