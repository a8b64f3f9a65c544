import pytest
import torch

from bundle.networks.seed import SEED_SIZES, SeedNetwork


@pytest.mark.parametrize("name", SEED_SIZES)
def test_the_papers_networks_have_the_channels_of_its_table(name):
    channels = SEED_SIZES[name]
    network = SeedNetwork(channels)
    result, features = network(torch.rand(2, channels[0], 64, 64))
    assert result.shape == (2, 1, 64, 64) and [f.shape[1] for f in features] == list(channels[1:-1])
    pairs = zip(channels[:-1], channels[1:], strict=True)
    assert sum(p.numel() for p in network.parameters()) == sum(9 * a * b + b for a, b in pairs)
