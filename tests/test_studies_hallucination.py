import numpy as np
import pytest
import torch
from data import head, phantom_map, save

from bundle.cases import make_case
from bundle.errors import InputError
from bundle.evaluation import classical_methods
from bundle.simulation.rendering import prepare_map
from bundle.simulation.tissues import CLASSES, to_classes
from bundle.studies.hallucination import blob, hallucination, judge, summarise, with_and_without
from bundle.studies.hallucination_plots import draw
from bundle.studies.insertion import (
    Place,
    ball,
    flat_places,
    pick_places,
    plan_lesions,
    plan_spheres,
    put_lesions,
    put_spheres,
)


def test_a_sphere_has_its_volume_whatever_the_voxels_and_its_place():
    place = Place((12.3, 15.8, 14.1), 3.0, 0.2)
    for spacing in ((1.0, 1.0, 1.0), (0.5, 0.7, 1.5)):
        slices, share = ball((40, 40, 40), place, spacing)
        assert share.shape == tuple(s.stop - s.start for s in slices) and float(share.min()) >= 0
        assert float(share.sum()) * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * 27, rel=0.03)


def test_spheres_add_their_contrast_and_controls_add_nothing():
    sharp = torch.zeros(40, 40, 40)
    places = [Place((10, 10, 10), 2.0, -0.3), Place((30, 30, 30), 2.0, 0.0)]
    result = put_spheres(sharp, places, (1, 1, 1), span=200.0)
    assert float(result[10, 10, 10]) == pytest.approx(-60) and not result[20:].any() and not sharp.any()


def test_places_are_apart_inside_the_mask_and_repeatable():
    mask = torch.zeros(60, 60, 60, dtype=torch.bool)
    mask[10:50, 10:50, 10:50] = True
    places = np.array(pick_places(mask, (1, 1, 1), 20, seed=1))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 100 * np.eye(len(places))
    assert distance.min() > 8 and places.min() >= 9.5 and places.max() <= 49.5
    assert np.array_equal(places, np.array(pick_places(mask, (1, 1, 1), 20, seed=1)))
    assert pick_places(mask & False, (1, 1, 1), 20, seed=1) == []


def test_spheres_lie_where_the_volume_is_flat(tmp_path):
    sharp = torch.from_numpy(head((64, 64, 64)))
    flat = flat_places(sharp)
    assert 0.01 < float(flat.float().mean()) < 0.3 and float(sharp[flat].std()) < 0.2 * float(sharp[flat].mean())
    places = plan_spheres(sharp, (1.0, 1.0, 1.0), seed=0)
    assert {p.contrast for p in places} >= {0.0} and len(places) > 10


def test_lesions_replace_white_matter_only():
    fine = prepare_map(to_classes(torch.from_numpy(phantom_map()[0])), (2.0, 2.0, 2.0))
    places = plan_lesions(fine, (1.0, 1.0, 1.0), seed=0)
    assert any(np.isnan(p.contrast) for p in places)
    changed = put_lesions(fine, places, (1.0, 1.0, 1.0)) != fine
    assert changed.any() and bool((fine[changed] == CLASSES.index("WM")).all())


def test_a_blob_stands_out_from_its_shell():
    volume, place = torch.full((40, 40, 40), 0.5), Place((20, 20, 20), 3.0, 0.0)
    assert blob(volume, place, (1, 1, 1)) == pytest.approx(0, abs=1e-6)
    found = blob(put_spheres(volume, [place._replace(contrast=0.2)], (1, 1, 1), 1.0), place, (1, 1, 1))
    assert 0.14 < found < 0.2  # voxels at the surface count for both sides


def test_a_perfect_method_brings_all_back_and_a_blind_one_nothing(tmp_path):
    path = save(tmp_path / "a_T1w.nii.gz", head((64, 64, 64)))
    plain, altered, places = next(iter(with_and_without({"image": path}, "A", (2, 2, 2), 0)))
    assert isinstance(plain, type(make_case(path, "A", (2, 2, 2)))) and not torch.equal(plain.low, altered.low)
    perfect = judge(plain, altered, places, (plain.reference, altered.reference), "perfect")
    blind = judge(plain, altered, places, (plain.reference, plain.reference), "blind")
    assert all(r["recovered"] == 1 for r in perfect if not r["control"])
    assert all(r["recovered"] == 0 for r in blind if not r["control"])
    assert all(r["appeared"] == 0 for r in perfect if r["control"])
    inventive = plain.reference.clone()
    control = next(p for p in places if p.contrast == 0)
    inventive = put_spheres(inventive, [control._replace(contrast=0.3)], plain.spacing, plain.span)
    rows = judge(plain, altered, places, (inventive, inventive), "inventive")
    table = summarise([*perfect, *rows])
    assert sum(r["false"] for r in table if r["method"] == "perfect") == 0
    assert sum(r["false"] for r in table if r["method"] == "inventive") >= 1
    cubic = classical_methods()["cubic"](altered)[0, 0]
    too_bright = [{**row, "bright_recovered": 1.6} for row in table]
    figure = draw(too_bright, plain, altered, places, {"cubic": cubic})
    assert len(figure.subfigs) == 2 and figure.subfigs[0].axes[0].get_ylim()[1] > 1.6  # nothing lies outside


def test_unknown_protocols_are_refused(tmp_path):
    with pytest.raises(InputError, match="--protocol 'Z': allowed are A, B, C"):
        hallucination([], tmp_path / "out", [(2, 2, 2)], "Z")
    assert not (tmp_path / "out").exists()


def test_pairs_are_refused(tmp_path):
    with pytest.raises(InputError, match="b.nii.gz: a pair; spheres are put into sharp volumes"):
        hallucination([{"low": "a.nii.gz", "high": "b.nii.gz"}], tmp_path, [(2, 2, 2)], "A")
