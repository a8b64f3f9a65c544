import numpy as np
import pytest
from data import head, save

from bundle.evaluation import classical_methods, compare
from bundle.evaluation_plots import Gallery, _gain, box_plots

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    path = save(tmp_path_factory.mktemp("v") / "a_T1w.nii.gz", head((32, 36, 33)))
    gallery = Gallery()
    methods = {k: v for k, v in classical_methods().items() if k != "trilinear"}
    compare([{"image": path}], methods, ["A"], [(2, 2, 2), (1, 1, 3)], look=gallery)
    return gallery


def test_every_case_is_shown_with_its_input_results_and_truth(gallery):
    assert [list(s.planes) for s in gallery.shown] == [["input", "cubic", "IBP", "reference"]] * 2
    for shown in gallery.shown:
        assert len({plane.shape for plane in shown.planes.values()}) == 1
        assert 0.9 < shown.histograms["reference"].sum() <= 1
        error = np.abs(shown.planes["cubic"] - shown.planes["reference"])
        assert error.max() > 0


def test_the_plots_are_written(gallery, tmp_path):
    paths = gallery.draw(tmp_path, "IBP")
    assert [p.name for p in paths] == ["metrics.png", "montage.png", "histograms.png"]
    assert all(p.stat().st_size > 10_000 for p in paths)
    assert Gallery().draw(tmp_path) == []


def test_the_worst_case_is_the_one_with_the_least_gain(gallery):
    gains = [_gain(s, "IBP") for s in gallery.shown]
    for shown, gain in zip(gallery.shown, gains, strict=True):
        score = {r["method"]: r["psnr"] for r in shown.rows}
        assert gain == pytest.approx(score["IBP"] - score["cubic"])


def test_infinite_scores_are_named_and_not_drawn():
    rows = [{"volume": "a", "modality": "T1w", "protocol": "A", "factors": "2x2x2"}] * 2
    rows = [{**rows[0], "method": "cubic", "psnr": 30.0}, {**rows[1], "method": "prediction", "psnr": float("inf")}]
    panel = box_plots(rows).axes[0]
    assert "infinite: prediction" in panel.get_title()
    assert [t.get_text() for t in panel.get_xticklabels()] == ["cubic", "prediction"]
