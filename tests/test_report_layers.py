import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from report_data import LEFT, make_item

from bundle.report import layers as module
from bundle.report.case import make_case
from bundle.report.layers import make_layers, window
from bundle.report.sheets import jpeg, make_sheets, png


def _decode(uri, mode):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert(mode))


def _slice(layer, k, mode="L"):
    sheet, place = divmod(k, layer["columns"] * layer["rows"])
    row, column = divmod(place, layer["columns"])
    (width, height), (nx, ny, _) = layer["tile"], layer["shape"]
    picture = _decode(layer["images"][sheet], mode)
    return picture[row * height : row * height + ny, column * width : column * width + nx]


@pytest.mark.parametrize("shape", [(5, 3, 7), (40, 61, 130), (1100, 1100, 3)])
def test_every_slice_can_be_cut_out_of_the_sheets(shape):
    colours = [(i, 255 - i, 7, 255) for i in range(256)]
    volume = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    layer = make_sheets(volume, png(colours))
    assert all(_decode(uri, "L").shape[1] <= 2048 for uri in layer["images"])
    for k in {0, shape[2] // 2, shape[2] - 1}:
        assert np.array_equal(_slice(layer, k, "RGB")[..., 0], volume[:, :, k].T)


def test_grey_slices_keep_their_values_closely_and_do_not_ring_into_each_other():
    volume = np.zeros((21, 30, 9), np.uint8)
    volume[:, :, ::2] = 255
    layer = make_sheets(volume, jpeg(90))
    for k in range(9):
        assert abs(int(_slice(layer, k).mean()) - (255 if k % 2 == 0 else 0)) <= 2


def test_opacity_is_part_of_a_coloured_map():
    layer = make_sheets(np.array([[[0], [1]]], np.uint8), png([(0, 0, 0, 0), (9, 8, 7, 200)]))
    assert _slice(layer, 0, "RGBA").reshape(-1, 4).tolist() == [[0, 0, 0, 0], [9, 8, 7, 200]]


def test_layers_lie_on_each_other_in_millimetres():
    item, pred, _ = make_item("a.nii.gz")
    case = make_case(item, pred)
    layers = make_layers(case)
    assert set(layers) == {"before", "after", "uncertainty", "tissue", "disagreement"}
    assert layers["before"]["step"] == [2.0] * 3 and layers["after"]["step"] == [1.0] * 3
    assert layers["after"]["shape"] == [2 * n for n in layers["before"]["shape"]]
    spot = [s.start + 0.5 * (s.stop - s.start) for s in LEFT]  # in low voxels, that is in units of 2 mm
    for name in ("before", "after"):
        layer = layers[name]
        x, y, z = (
            round((2 * p - begin) / step) for p, begin, step in zip(spot, layer["start"], layer["step"], strict=True)
        )
        assert _slice(layer, z)[y, x] > 240, name
        assert _slice(layer, z)[y, layer["shape"][0] - 1 - x] < 200, name


def test_black_and_white_are_those_of_the_input_in_both_volumes():
    item, pred, _ = make_item("a.nii.gz", "7T", maps=False)
    case = make_case(item, pred)
    assert window(case) == window(case._replace(high=3 * case.high))
    assert set(make_layers(case)) == {"before", "after"}


def test_only_differences_above_the_noise_are_coloured():
    item, pred, _ = make_item("a.nii.gz")
    case = make_case(item, pred)
    clean = case.operator(case.high) + 0.01 * torch.randn(case.low.shape)
    clean[20:23, 20:23, 16:19] += 0.2
    layer = make_layers(case._replace(low=clean))["disagreement"]
    offsets = [round((2 * p + 1 - begin) / 2) for p, begin in zip((21, 21, 17), layer["start"], strict=True)]
    colours = _slice(layer, offsets[2], "RGBA")
    red, _, blue, alpha = colours[offsets[1], offsets[0]]
    assert alpha > 200 and red > blue
    assert (_slice(layer, offsets[2] + 6, "RGBA")[..., 3] > 0).mean() < 0.1


def test_a_volume_too_large_to_show_is_shown_in_larger_voxels(monkeypatch):
    monkeypatch.setattr(module, "MAX_VOXELS", 64_000)
    item, pred, _ = make_item("a.nii.gz")
    layers = make_layers(make_case(item, pred))
    assert layers["after"]["step"][0] == pytest.approx(2, rel=0.1) and layers["tissue"]["step"][0] > 1.8
