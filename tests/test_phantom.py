import torch

from bundle.simulation.phantom import brain_phantom
from bundle.simulation.tissues import CLASSES, SIDES, to_classes

SMALL = {"shape": (88, 104, 92), "spacing": 2.0}


def _ml(classes, *names):
    return sum(int((classes == CLASSES.index(n)).sum()) for n in names) * 8 / 1000


def test_the_phantom_is_a_head_of_human_size():
    classes = to_classes(brain_phantom(**SMALL))
    assert 500 < _ml(classes, "WM") < 900 and 200 < _ml(classes, "cortical GM") < 700
    assert 200 < _ml(classes, "CSF") < 700 and 80 < _ml(classes, "cerebellar GM", "cerebellar WM") < 220
    for name in ("deep GM", "pallidum", "brainstem", "compact bone", "spongy bone", "soft tissue", "skin", "vessel"):
        assert _ml(classes, name) > 0.5, name
    assert float((classes == 0).float().mean()) > 0.3  # air around it


def test_the_cortex_is_folded_and_lies_on_the_white_matter():
    labels = brain_phantom(**SMALL)
    classes = to_classes(labels)
    white, grey = classes == CLASSES.index("WM"), classes == CLASSES.index("cortical GM")
    touching = sum(int((white.roll(s, a) & grey).sum()) for a in range(3) for s in (-1, 1))
    surface = touching * 2.0**2  # mm^2 of the border between them; two smooth hemispheres would have about 500 cm^2
    assert surface / 100 > 1000


def test_sides_seeds_and_repeatability():
    first, again, other = (brain_phantom(**SMALL, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    middle = first.shape[0] // 2
    for left, right in SIDES[:4]:
        assert not (first[middle:] == left).any() and not (first[:middle] == right).any()
        a, b = int((first == left).sum()), int((first == right).sum())
        assert 0.8 < a / b < 1.25
