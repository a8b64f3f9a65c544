import pytest
import torch
from monai.transforms import RandGaussianNoised
from torch.utils.data import Dataset

from bundle.errors import InputError
from bundle.studies.pool import Pool


class _Source(Dataset):
    """Random examples, as a data set with a random transform makes them."""

    def __init__(self):
        self.transform = RandGaussianNoised("image", prob=1.0)
        self.asked = 0

    def __getitem__(self, index):
        self.asked += 1
        base = {"image": torch.zeros(1, 4, 4, 4), "condition": torch.full((6,), float(index))}
        return self.transform(base)


def test_examples_are_made_once_and_are_the_same_for_every_run(tmp_path):
    source, path = _Source(), str(tmp_path / "runs" / "pool.pt")
    torch.manual_seed(1)
    first = Pool(source, [3, 1], path, 5)
    state = torch.get_rng_state()
    again = Pool(source, [0, 0], path, 5)
    assert source.asked == 5 and len(first) == len(again) == 5
    assert [int(first[i]["condition"][0]) for i in range(5)] == [3, 1, 3, 1, 3]
    assert all(torch.equal(first[i]["image"], again[i]["image"]) for i in range(5))
    assert not torch.equal(first[0]["image"], first[2]["image"]) and first[0]["image"].dtype == torch.float32
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # making it takes nothing from the run's own randomness
    other = Pool(_Source(), [3, 1], str(tmp_path / "other.pt"), 5)
    assert torch.equal(other[4]["image"], first[4]["image"])


def test_a_pool_of_another_size_is_refused(tmp_path):
    Pool(_Source(), [0], str(tmp_path / "pool.pt"), 2)
    with pytest.raises(InputError, match="pool.pt: holds 2 examples, 3 are asked for"):
        Pool(_Source(), [0], str(tmp_path / "pool.pt"), 3)
