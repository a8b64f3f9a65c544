import numpy as np
import pytest
import SimpleITK as sitk
import torch
from data import head, save, small_network

from bundle import forecast as module
from bundle.forecast import HELD, forecast
from bundle.inferer import SuperResolutionInferer


def _forecast(paths, spacing=None, **inferer):
    items = [{"image": str(p)} for p in paths]
    return forecast(items, spacing, SuperResolutionInferer(**inferer), small_network(), torch.device("cpu"))


def _claims(path, shape):
    """A header of a volume whose voxels are never read."""
    save(path, head((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array(shape, "<i2").tobytes()
    path.write_bytes(content)
    return path


def test_the_largest_result_is_told_from_headers_alone(tmp_path, capsys):
    paths = [save(tmp_path / "small.nii.gz", head((20, 20, 20))), _claims(tmp_path / "large.nii", (100, 110, 120))]
    image = sitk.GetImageFromArray(head((24, 26, 20)).transpose())
    sitk.WriteImage(image, str(tmp_path / "other.nrrd"))
    largest = _forecast([*paths, tmp_path / "other.nrrd"])
    assert largest.shape == (200, 220, 240) and largest.path.name == "large.nii" and largest.fits
    active = 200 * 224 * 240 * small_network().bytes_per_voxel  # the network pads to multiples of 8
    assert largest.peak == 200 * 220 * 240 * HELD + active and largest.tile is None
    text = capsys.readouterr().out
    assert (
        text.startswith("memory: large.nii becomes 200 x 220 x 240, about 1.1 GB in one piece; ")
        and text.count("\n") == 1
    )


def test_tiles_are_told(tmp_path, capsys):
    largest = _forecast([_claims(tmp_path / "large.nii", (100, 110, 120))], max_memory=2**26)
    assert largest.tile == 104 and "GB in tiles of 104" in capsys.readouterr().out
    assert largest.peak < 200 * 220 * 240 * (HELD + 10)


def test_what_is_too_large_is_told_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda device: 2**29)
    small, large = save(tmp_path / "small.nii.gz", head((20, 20, 20))), _claims(tmp_path / "large.nii", (300, 300, 300))
    assert not _forecast([small, large]).fits
    assert "memory: 1 of 2 volumes are too large for it and will be refused: large.nii" in capsys.readouterr().out


def test_the_spacing_that_was_asked_for_counts(tmp_path):
    path = save(tmp_path / "a.nii", head((20, 22, 24)), np.diag([2.0, 1, 1, 1]))
    assert _forecast([path], (0.5, 0.5, 1.0)).shape == (80, 44, 24)


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.touch(), lambda p: p.mkdir(), lambda p: p.write_text("x")]
)
def test_what_has_no_header_is_left_to_the_reader(tmp_path, make, capsys):
    make(tmp_path / "a.nii.gz")
    assert _forecast([tmp_path / "a.nii.gz"]) is None and capsys.readouterr().out == ""
