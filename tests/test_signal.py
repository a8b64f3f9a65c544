import math

import pytest
import torch

from bundle.errors import InputError
from bundle.simulation.signal import Readout, inversion_recovery, mp2rage, mprage, spin_echo
from bundle.simulation.tissues import CLASSES, Relaxation, relaxation


def _tissue(t1, t2=80.0, t2_star=50.0, density=0.7):
    return Relaxation(*(torch.tensor([float(v)], dtype=torch.float64) for v in (t1, t2, t2_star, density)))


def test_readouts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"200 pulses of 10.0 ms around \[900.0\] ms do not fit"):
        mprage(_tissue(800), 900.0, 2000.0, 3.0, 8.0, 10.0, 200)
    with pytest.raises(InputError, match="do not fit"):
        inversion_recovery(torch.tensor([800.0]), [Readout(800, 4), Readout(1000, 5)], 5000.0, 7.0, 160)
    with pytest.raises(InputError, match="echo train of 300.0 ms does not fit"):
        spin_echo(_tissue(800), 250.0, 100.0, echoes=30)


def test_without_pulses_it_is_the_classic_inversion_recovery():
    # m(TI) = 1 - 2 exp(-TI/T1) / (1 + exp(-TR/T1)), by hand for TI 500, TR 1500, T1 700: 0.1237
    t1 = torch.tensor([700.0], dtype=torch.float64)
    (signal,) = inversion_recovery(t1, [Readout(500.0, 1e-4)], 1500.0, 1.0, 2, efficiency=1.0)
    m = signal / math.sin(math.radians(1e-4))
    expected = 1 - 2 * math.exp(-500 / 700) / (1 + math.exp(-1500 / 700))
    assert float(m) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(0.1237, abs=1e-4)


def _bloch(t1, ti, tr, spacing, pulses, angle, efficiency):
    """Longitudinal magnetisation followed pulse by pulse until it repeats; the transverse one is spoiled."""
    m, middle = 1.0, 0.0

    def rest(m, t):
        return 1 - (1 - m) * math.exp(-t / t1)

    for _ in range(60):
        m = rest(-efficiency * m, ti - pulses / 2 * spacing)
        for pulse in range(pulses):
            if pulse == pulses // 2:
                middle = m * math.sin(angle)
            m = rest(m * math.cos(angle), spacing)
        m = rest(m, tr - ti - pulses / 2 * spacing)
    return middle


@pytest.mark.parametrize("t1", [350.0, 838.0, 1607.0, 4300.0])
def test_mprage_is_what_a_pulse_by_pulse_simulation_gives(t1):
    closed = mprage(_tissue(t1, density=1.0), 900.0, 2300.0, 3.0, 9.0, 7.0, 176)
    brute = abs(_bloch(t1, 900.0, 2300.0, 7.0, 176, math.radians(9), 0.96)) * math.exp(-3 / 50)
    assert float(closed) == pytest.approx(brute, rel=1e-5)


def test_mp2rage_orders_the_7t_tissues_and_cancels_density_and_receive_field():
    # Marques et al. 2010, 7 T: TR 5 s, TI 0.8 and 2.7 s, flip angles 4 and 5 degrees: falls with T1 from fat to fluid
    protocol = ((800.0, 2700.0), 5000.0, (4.0, 5.0), 6.0, 160)
    t1 = torch.tensor([1126.0, 1500.0, 1939.0, 4300.0])
    values = mp2rage(Relaxation(t1, t1, t1, torch.ones(4)), *protocol)
    assert (values.diff() < 0).all() and float(values.min()) >= 0 and float(values.max()) <= 1
    assert torch.equal(values, mp2rage(Relaxation(t1, t1 / 9, t1 / 20, torch.full((4,), 0.3)), *protocol))
    # to first order free of the transmit field: 10 % more changes it by less than 10 % of its range
    assert float((mp2rage(Relaxation(t1, t1, t1, t1), *protocol, b1=1.1) - values).abs().max()) < 0.1
    first = torch.tensor([0.05, -0.02])
    second = torch.tensor([0.1, 0.1])
    assert torch.allclose(first * second / (first**2 + second**2), torch.tensor([0.4, -0.1923]), atol=1e-4)


def test_spin_echo_by_hand():
    # 0.7 (1 - exp(-(4000 - 120)/1000)) exp(-100/80), 12 echoes of 10 ms: 0.1964
    value = spin_echo(_tissue(1000.0), 4000.0, 100.0, echoes=12, echo_spacing=10.0)
    assert float(value) == pytest.approx(0.7 * (1 - math.exp(-3.88)) * math.exp(-1.25), rel=1e-9)
    assert float(value) == pytest.approx(0.1964, abs=1e-4)
    assert float(spin_echo(_tissue(1000.0), 4000.0, 100.0, b1=0.5)) == pytest.approx(
        float(spin_echo(_tissue(1000.0), 4000.0, 100.0)) * math.sin(math.pi / 4), rel=1e-6
    )


def test_at_7t_grey_matter_is_darker_against_white_matter_than_at_1p5t():
    # T1w contrast grows with the field (Marques et al. 2010; Wright et al. 2008 give the T1 behind it)
    low = mprage(relaxation(1.5), 1000.0, 2200.0, 3.0, 8.0, 7.0, 160)
    high = mprage(relaxation(7.0), 1100.0, 2600.0, 3.0, 5.0, 7.0, 192)
    white, grey, fluid = (CLASSES.index(name) for name in ("WM", "cortical GM", "CSF"))
    assert float(high[grey] / high[white]) < float(low[grey] / low[white]) - 0.05
    assert float(high[fluid] / high[white]) < 0.3
