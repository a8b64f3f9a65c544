import numpy as np
import pytest
import torch
from data import head, save

from bundle.cases import make_case
from bundle.networks.anatomy import TISSUES
from bundle.studies.morphometry import draw, rows_of, structures, volumes


def _brain(ventricle=6):
    """A ball of white matter in grey matter in fluid, with fluid in its middle."""
    axes = np.meshgrid(*(np.arange(60) - 29.5 for _ in range(3)), indexing="ij")
    radius = torch.from_numpy(np.sqrt(sum(a**2 for a in axes)))
    tissue = torch.zeros(60, 60, 60, dtype=torch.uint8)
    for limit, name in ((28, "CSF"), (26, "cortical GM"), (22, "WM"), (ventricle, "CSF")):
        tissue[radius < limit] = TISSUES.index(name)
    return tissue


def test_volumes_are_those_of_balls_in_millilitres():
    found = volumes(_brain(), (1.0, 1.0, 2.0))
    ball = [4 / 3 * np.pi * r**3 * 2 / 1000 for r in (6, 22, 26)]
    assert found["ventricles"] == pytest.approx(ball[0], rel=0.03)
    assert found["white matter"] == pytest.approx(ball[1] - ball[0], rel=0.03)
    assert found["grey matter"] == pytest.approx(ball[2] - ball[1], rel=0.03)


def test_fluid_near_the_surface_is_no_ventricle():
    inside = structures(_brain(), (1.0, 1.0, 1.0))["ventricles"].nonzero().float() - 29.5
    assert float(inside.norm(dim=1).max()) <= 6


def test_an_inflated_structure_shows_in_the_rows_and_the_picture(tmp_path):
    case = make_case(save(tmp_path / "a_T1w.nii.gz", head((60, 60, 60))), "A", (2, 2, 2))
    rows = rows_of(case, {"cubic": _brain(), "bundle": _brain(7)}, _brain())
    found = {(r["method"], r["structure"]): r for r in rows}
    assert found["cubic", "ventricles"]["difference_percent"] == 0 and found["cubic", "ventricles"]["dice"] == 1
    assert found["bundle", "ventricles"]["difference_percent"] == pytest.approx(100 * (343 / 216 - 1), rel=0.1)
    assert found["bundle", "white matter"]["difference_percent"] < 0
    figure = draw(rows)
    assert [a.get_title() for a in figure.axes] == ["ventricles", "grey matter", "white matter"]
