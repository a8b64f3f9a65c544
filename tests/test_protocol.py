import itertools
import json

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.simulation.protocol import INPUT_SEQUENCES, MODALITIES, TARGET, draw, signals
from bundle.simulation.signal import mprage, spin_echo
from bundle.simulation.tissues import CLASSES, relaxation


def test_bad_modalities_and_fields_are_refused():
    random = np.random.RandomState(0)
    with pytest.raises(InputError, match="'PD': allowed are T1w, T2w"):
        draw(random, "PD", 1.5, 7.0)
    with pytest.raises(InputError, match="low field 7.0 T is above the high field 3.0 T"):
        draw(random, "T1w", 7.0, 3.0)
    with pytest.raises(InputError, match="9.4 T: relaxation times are known from 1.5 to 7.0 T"):
        signals(draw(random, "T1w", 1.5, 9.4), "high")


@pytest.mark.parametrize("kind", INPUT_SEQUENCES)
def test_every_corner_of_the_ranges_can_be_scanned(kind):
    names, ends = zip(*INPUT_SEQUENCES[kind].items(), strict=True)
    for corner in itertools.product(*ends):
        settings = dict(zip(names, corner, strict=True))
        values = (mprage if kind == "mprage" else spin_echo)(relaxation(3.0), **settings)
        assert torch.isfinite(values).all() and float(values[CLASSES.index("WM")]) > 0


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_draw_is_plain_repeatable_and_keeps_the_target(modality):
    first, again, other = (draw(np.random.RandomState(s), modality, 1.5, 7.0) for s in (1, 1, 2))
    assert json.loads(json.dumps(first)) == first == again != other
    assert first["high_sequence"] == other["high_sequence"] == TARGET[modality]


def test_white_matter_is_one_and_fluid_dark_in_t1w_and_bright_in_t2w():
    for seed, modality in itertools.product(range(10), MODALITIES):
        for which in ("low", "high"):
            values = signals(draw(np.random.RandomState(seed), modality, 3.0, 7.0), which)
            grey, fluid = (float(values[CLASSES.index(name)]) for name in ("cortical GM", "CSF"))
            assert float(values[CLASSES.index("WM")]) == pytest.approx(1)
            assert (fluid < grey < 1) if modality == "T1w" else fluid > 1.5 > 0.8 < grey
