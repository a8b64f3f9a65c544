import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.image_log import ImageLog, picture


def _item(value=0.5, shape=(6, 8, 10)):
    image, label = torch.full((1, *shape), 0.25), torch.full((1, *shape), value)
    return {"image": image, "pred": label + 0.1, "label": label}


def test_rows_are_planes_and_columns_are_input_prediction_truth_and_error():
    item = _item()
    item["image"][0, 0, :, 9] = 1.0  # left, all from back to front, top
    shown = picture(item)[0]
    assert shown.shape == (30, 40) and float(shown.min()) >= 0 and float(shown.max()) <= 1
    axial, coronal, sagittal = shown.split(10)
    assert axial[0, :6].tolist() == pytest.approx([0.25] * 6)  # the middle slice does not reach the top
    assert coronal[0, :6].tolist() == pytest.approx([1] + [0.25] * 5)
    assert sagittal[0, :8].tolist() == pytest.approx([0.25] * 8)
    for column, value in enumerate((0.6, 0.5, 0.4), start=1):
        assert axial[:8, 10 * column : 10 * column + 6].unique().tolist() == pytest.approx([value])
    assert float(axial[:, 6:10].max()) == 0  # padded to squares


def test_tissues_are_spread_over_the_grey_scale():
    item = _item()
    item["label"] = torch.full((1, 6, 8, 10), 4, dtype=torch.uint8)
    item["pred"] = torch.full((1, 6, 8, 10), 2, dtype=torch.uint8)
    shown = picture(item)[0]
    assert float(shown[0, 10]) == 0.5 and float(shown[0, 20]) == 1 and float(shown[0, 30]) == 1


def test_the_first_volumes_of_each_validation_are_written(tmp_path):
    engine = Engine(lambda engine, batch: [_item(batch / 10)])
    ImageLog(str(tmp_path), volumes=2).attach(engine)
    engine.run(range(4), max_epochs=3)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == ["validation/0", "validation/1"]
    assert [event.step for event in events.Images("validation/1")] == [1, 2, 3]


def test_no_volumes_make_no_sense():
    with pytest.raises(ValueError, match="volumes 0: at least 1"):
        ImageLog("x", volumes=0)
