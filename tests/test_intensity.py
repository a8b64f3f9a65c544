import pytest
import torch
from data import head
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import InputError
from bundle.intensity import fit_intensity, percentiles


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_with_their_number(bad):
    volume = torch.from_numpy(head())
    volume[3, 4, 5] = bad
    with pytest.raises(InputError, match="scan.nii: 1 voxels are NaN or Inf"):
        fit_intensity(volume, "scan.nii")


def test_a_constant_volume_is_refused():
    with pytest.raises(InputError, match="same value"):
        fit_intensity(torch.full((20, 20, 20), 7.0))


@settings(max_examples=25, deadline=None)
@given(st.floats(-500, 500), st.floats(0.01, 1000))
def test_normalisation_does_not_see_gain_and_offset_and_is_inverted(offset, gain):
    plain = torch.from_numpy(head())
    volume = plain * gain + offset
    intensity = fit_intensity(volume)
    normalised = intensity.normalise(volume)
    assert torch.allclose(normalised, fit_intensity(plain).normalise(plain), atol=2e-3)
    assert torch.allclose(intensity.restore(normalised), volume, rtol=1e-4, atol=1e-3 * gain + 1e-3)
    assert -0.05 < percentiles(normalised, (50.0,))[0] < 1.05


def test_percentiles_of_large_volumes_are_close_to_the_exact_ones():
    volume = torch.linspace(0, 1, 5_000_000)
    assert percentiles(volume, (10.0, 99.0)) == pytest.approx([0.1, 0.99], abs=1e-3)
