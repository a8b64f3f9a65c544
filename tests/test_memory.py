import pytest
import torch
from data import head, save, small_network
from monai.data import MetaTensor

from bundle import inferer, job
from bundle.errors import InputError
from bundle.inferer import SuperResolutionInferer
from bundle.memory import is_out_of_memory, with_smaller_tiles

IMAGE = torch.rand(1, 1, 40, 40, 48, generator=torch.Generator().manual_seed(0))


def _card(voxels, tried=None):
    """A run that fails as a GPU does when a tile has more voxels than the card can take."""

    def run(tile):
        if tried is not None:
            tried.append(tile)
        if (tile or 256) ** 3 > voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return "done"

    return run


def test_what_fits_runs_once():
    assert with_smaller_tiles(_card(10**9), None, (256, 256, 256), 96) == ("done", None)


def test_tiles_shrink_until_they_fit():
    tried = []
    assert with_smaller_tiles(_card(120**3, tried), None, (256, 200, 256), 96) == ("done", 112)
    assert tried == [None, 168, 112]


def test_a_card_too_small_for_the_smallest_tiles_is_one_line():
    with pytest.raises(InputError, match="17 million voxels, in tiles of 96 voxels either; .*--device cpu"):
        with_smaller_tiles(_card(10), 128, (256, 256, 256), 96)


def test_other_errors_are_not_taken_for_it():
    def run(tile):
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="do not match"):
        with_smaller_tiles(run, None, (256, 256, 256), 96)
    assert not is_out_of_memory(RuntimeError("x")) and not is_out_of_memory(ValueError("not enough memory"))


def test_the_cpu_runs_out_in_other_words():
    for allocate in (lambda: torch.empty(2**60), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            allocate()
        assert is_out_of_memory(error.value)


@pytest.fixture
def small_card(monkeypatch):
    """Activations of more than 42 voxels a side do not fit."""
    predict = inferer.Draw._clean

    def limited(self, tile, *given):
        if max(tile.shape[2:]) > 42:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(self, tile, *given)

    monkeypatch.setattr(inferer.Draw, "_clean", limited)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "steps": 2, "samples": 2}])
def test_the_inferer_falls_back_and_the_result_says_so(small_card, options):
    run = SuperResolutionInferer(amp=False, overlap=16, **options)
    result = run(MetaTensor(IMAGE), small_network())
    assert int(result.meta["tile"]) == 32 and int(result.meta["memory_ran_out"]) == 1
    planned = SuperResolutionInferer(amp=False, overlap=16, tile=32, **options)(MetaTensor(IMAGE), small_network())
    assert torch.equal(result.as_tensor(), planned.as_tensor()) and int(planned.meta["memory_ran_out"]) == 0


def test_the_sidecar_and_the_command_say_so(tmp_path, monkeypatch, capsys):
    combine = inferer.SuperResolutionInferer._combine

    def limited(self, draw):
        if draw.tile is None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return combine(self, draw)

    monkeypatch.setattr(inferer.SuperResolutionInferer, "_combine", limited)
    save(tmp_path / "a_T1w.nii.gz", head((54, 50, 30)))
    job.enhance(str(tmp_path / "a_T1w.nii.gz"), str(tmp_path))
    words = "memory ran out; done again in tiles of 96 voxels"
    assert f"warning: a_T1w.nii.gz: {words}" in capsys.readouterr().out
    sidecar = (tmp_path / "a_T1w_desc-superres.json").read_text()
    assert words in sidecar and '"Tile": 96' in sidecar
