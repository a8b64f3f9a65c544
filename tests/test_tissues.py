import pytest
import torch

from bundle.errors import InputError
from bundle.simulation.tissues import CLASSES, LABELS, to_classes


def test_unknown_labels_are_refused_with_their_numbers():
    with pytest.raises(InputError, match=r"map.nii: labels \[999\] are unknown"):
        to_classes(torch.tensor([0.0, 2.0, 999.0]), "map.nii")


def test_left_and_right_become_one_class():
    classes = to_classes(torch.tensor([0, 2, 41, 3, 42, 4, 43, 16]))
    names = [CLASSES[i] for i in classes.tolist()]
    assert names == ["background", "WM", "WM", "cortical GM", "cortical GM", "CSF", "CSF", "brainstem"]


def test_every_label_has_one_class():
    numbers = [n for group in LABELS.values() for n in group]
    assert len(numbers) == len(set(numbers))
    assert set(LABELS) == set(CLASSES)
