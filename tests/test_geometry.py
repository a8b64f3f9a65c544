import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import InputError
from bundle.geometry import (
    CanonicalAxes,
    Grid,
    apply_axes,
    check_grid,
    default_spacing,
    resample,
    resample_matrix,
    target_grid,
)

EYE = np.eye(4)


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((40, 40), EYE, "2 axes"),
        ((40, 40, 40, 7), EYE, "4 axes"),
        ((40, 15, 40), EYE, "at least 16"),
        ((40, 40, 40), np.diag([1.0, 0, 1, 1]), "singular"),
        ((40, 40, 40), np.array([[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        ((40, 40, 40), np.diag([np.nan, 1, 1, 1]), "NaN"),
        ((40, 40, 40), np.diag([1000.0, 1, 1, 1]), "outside 0.1 to 15"),
        ((40, 40, 40), np.diag([0.001, 1, 1, 1]), "outside 0.1 to 15"),
    ],
)
def test_headers_that_no_brain_has_are_refused_with_file_and_reason(shape, affine, words):
    with pytest.raises(InputError, match=words) as error:
        check_grid(shape, affine, "scan.nii")
    assert "scan.nii" in str(error.value)


def test_a_good_header_passes():
    check_grid((16, 200, 300), np.diag([-0.5, 0.5, 15.0, 1]), "scan.nii")


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5)),
        ((1.2, 1.0, 1.0), (0.6, 0.5, 0.5)),
        ((0.7, 0.7, 0.7), (0.4, 0.4, 0.4)),
        ((0.3, 0.3, 0.3), (0.3, 0.3, 0.3)),
        ((0.7, 0.7, 3.0), (0.7, 0.7, 0.7)),
        ((0.3, 0.3, 3.0), (0.3, 0.3, 0.4)),
    ],
)
def test_default_spacing_follows_the_rule(spacing, expected):
    assert default_spacing(spacing) == pytest.approx(expected)


affines = st.builds(
    lambda angles, spacing, shift, flips, order: _affine(angles, spacing, shift, flips, order),
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.tuples(*[st.floats(0.4, 4)] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.permutations(range(3)),
)


def _affine(angles, spacing, shift, flips, order):
    affine = np.eye(4)
    rotation = nib.eulerangles.euler2mat(*angles)
    affine[:3, :3] = (rotation * (np.array(spacing) * flips))[:, list(order)]
    affine[:3, 3] = shift
    return affine


@settings(max_examples=60, deadline=None)
@given(affines, st.tuples(*[st.integers(16, 60)] * 3), st.tuples(*[st.floats(0.4, 3)] * 3))
def test_the_edges_of_the_field_of_view_stay_for_any_affine(affine, shape, wanted):
    grid = Grid(shape, affine)
    target = target_grid(grid, wanted)
    assert target.shape == tuple(max(1, round(n * s / w)) for n, s, w in zip(shape, grid.spacing, wanted, strict=True))
    for corner in np.ndindex(2, 2, 2):
        edges = [g.affine @ [*(c * n - 0.5 for c, n in zip(corner, g.shape, strict=True)), 1] for g in (grid, target)]
        assert np.allclose(edges[0], edges[1], atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("sizes", [(20, 40), (20, 37), (40, 20), (24, 24)])
def test_resampling_keeps_constants_and_the_interior_of_ramps_in_place(order, sizes):
    matrix = resample_matrix(*sizes, order)
    assert torch.allclose(matrix.sum(1), torch.ones(sizes[1]), atol=1e-5)
    position = (torch.arange(sizes[0]) + 0.5) / sizes[0]
    expected = (torch.arange(sizes[1]) + 0.5) / sizes[1]
    inside = (expected > 0.25) & (expected < 0.75)
    assert torch.allclose((matrix @ position)[inside], expected[inside], atol=2e-3)


def test_cubic_interpolation_goes_through_its_samples():
    assert torch.allclose(resample_matrix(30, 30, 3), torch.eye(30), atol=1e-5)
    odd = resample_matrix(30, 90, 3)[1::3]  # every third output centre lies on an input centre
    assert torch.allclose(odd, torch.eye(30), atol=1e-5)


def test_another_order_is_refused():
    with pytest.raises(ValueError, match="order 2"):
        resample_matrix(10, 20, 2)


def test_axes_are_applied_to_the_right_dimensions():
    volume = torch.randn(2, 1, 5, 6, 7)
    matrices = [torch.randn(3, 5), torch.randn(8, 6), torch.randn(4, 7)]
    expected = torch.einsum("xcijk,ai,dj,ek->xcade", volume, *matrices)
    assert torch.allclose(apply_axes(volume, matrices), expected, atol=1e-4)


def test_resample_gives_the_shape_asked_for():
    assert resample(torch.zeros(1, 1, 16, 17, 18), (33, 17, 9)).shape == (1, 1, 33, 17, 9)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
def test_axes_turn_to_canonical_ones_and_back_as_nibabel_does(codes):
    volume = torch.rand(2, 4, 5, 6)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    affine = np.eye(4) @ nib.orientations.inv_ornt_aff(turn, (4, 5, 6))
    axes = CanonicalAxes.of(affine)
    expected = nib.as_closest_canonical(nib.Nifti1Image(volume[0].numpy(), affine)).get_fdata()
    entered = axes.enter(volume)
    assert np.allclose(entered[0].numpy(), expected) and torch.equal(axes.leave(entered), volume)
