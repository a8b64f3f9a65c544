import pytest
import torch

from bundle.errors import InputError
from bundle.simulation.tissues import CLASSES, FIELDS, LABELS, SIDES, SOURCES, TISSUES, relaxation, to_classes


def test_unknown_labels_are_refused_with_their_numbers():
    with pytest.raises(InputError, match=r"map.nii: labels \[999\] are unknown"):
        to_classes(torch.tensor([0.0, 2.0, 999.0]), "map.nii")


def test_left_and_right_become_one_class():
    classes = to_classes(torch.tensor([0, 2, 41, 3, 42, 4, 43, 16]))
    names = [CLASSES[i] for i in classes.tolist()]
    assert names == ["background", "WM", "WM", "cortical GM", "cortical GM", "CSF", "CSF", "brainstem"]
    for left, right in SIDES:
        assert len(set(to_classes(torch.tensor([left, right])).tolist())) == 1


def test_every_label_has_one_class():
    numbers = [n for group in LABELS.values() for n in group]
    assert len(numbers) == len(set(numbers))
    assert set(LABELS) == set(CLASSES) == set(TISSUES)


def test_every_number_has_a_source_and_the_right_order():
    for name, tissue in TISSUES.items():
        assert len(tissue.sources) == 4 and set(tissue.sources) <= set(SOURCES), name
        assert list(tissue.t1) == sorted(tissue.t1), name  # T1 grows with the field, T2* and T2 do not
        assert list(tissue.t2_star) == sorted(tissue.t2_star, reverse=True), name
        assert all(s <= 1.02 * t2 for s, t2 in zip(tissue.t2_star, tissue.t2, strict=True)), name  # two studies


def test_relaxation_hits_the_published_values_and_runs_smoothly_between():
    white, grey = CLASSES.index("WM"), CLASSES.index("cortical GM")
    published = {1.5: (646, 1197), 3.0: (810, 1350), 7.0: (1150, 1920)}  # Wright et al. 2008, Marques et al. 2010
    for field in FIELDS:
        values = relaxation(field)
        assert (float(values.t1[white]), float(values.t1[grey])) == pytest.approx(published[field], rel=1e-5)
    between = relaxation(5.0).t1[white]
    assert float(between) == pytest.approx(810 * (1150 / 810) ** 0.6029, rel=1e-3)  # ln(5/3) / ln(7/3) = 0.6029
    with pytest.raises(InputError, match="0.5 T"):
        relaxation(0.5)
