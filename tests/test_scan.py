import numpy as np
import pytest

from bundle.errors import InputError
from bundle.scan import check_size, check_values, saturation, squeezed


def test_trailing_axes_of_one_go():
    assert squeezed((4, 5, 6, 1, 1)) == (4, 5, 6) and squeezed((4, 5, 6, 2, 1)) == (4, 5, 6, 2)
    assert squeezed((4, 5, 1)) == (4, 5, 1)


def test_a_claim_is_held_against_the_bytes_that_are_there():
    assert check_size((10, 10, 10), 4, 4000, False, "a") == 4000
    with pytest.raises(InputError, match=r"a: the header claims 10 x 10 x 10 voxels \(4,000 bytes\), and 3,999 bytes"):
        check_size((10, 10, 10), 4, 3999, False, "a")
    assert check_size((10, 10, 10), 4, 4, True, "a") == 4000
    with pytest.raises(InputError, match="can't hold"):
        check_size((10, 10, 10), 4, 3, True, "a")


def test_a_claim_is_held_against_the_memory(monkeypatch):
    monkeypatch.setattr("bundle.scan.free_memory", lambda device: 11_999)
    with pytest.raises(InputError, match="10 x 10 x 10 voxels need 0.0 GB of memory"):
        check_size((10, 10, 10), 4, 4000, False, "a")


@pytest.mark.parametrize("value", [1e31, -1e31])
def test_magnitudes_beyond_single_precision_are_refused(value):
    with pytest.raises(InputError, match="values up to 1e.31"):
        check_values(np.array([0, value]), "a")
    check_values(np.array([0, value * 0.01]), "a")
    check_values(np.array([0, np.nan, np.inf]), "a")  # those are looked for later
    check_values(np.array([5]), "a")


def test_saturation_is_warned_about_or_refused_by_its_share():
    volume = np.zeros(1000)
    volume[:500] = np.linspace(100, 200, 500)
    assert saturation(volume, "a") == ()
    volume[:50] = 255
    assert saturation(volume, "a") == (
        "10.0% of the foreground is saturated at 255; what was cut off cannot be restored",
    )
    volume[:300] = 255
    with pytest.raises(InputError, match="a: 60% of the foreground has the largest value 255"):
        saturation(volume, "a")
