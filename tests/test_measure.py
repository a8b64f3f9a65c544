import numpy as np
import pytest

from bundle.measure import measured


def test_what_a_call_returns_and_holds_is_told():
    def hungry():
        block = np.ones(30_000_000)  # 240 MB
        return float(block[:10].sum())

    found = measured(hungry)
    assert found.result == 10 and found.seconds > 0
    assert found.gigabytes > 0.1


def test_a_failing_call_fails():
    with pytest.raises(ZeroDivisionError):
        measured(lambda: 1 / 0)
