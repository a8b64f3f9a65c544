import pytest
import torch
from data import small_network

from bundle.errors import InputError
from bundle.networks.anatomy import AnatomyExtractor
from bundle.networks.super_resolver import SuperResolver
from bundle.networks.weights import grow, load_super_resolver, start_from

IMAGE = torch.rand(1, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", ("student", "teacher"))
def test_a_grown_network_begins_as_the_smaller_one_and_can_learn_more(size):
    small = small_network()
    large = grow(SuperResolver(size), small.state_dict())
    assert torch.allclose(large(IMAGE), small(IMAGE), atol=1e-5)
    large(IMAGE).square().mean().backward()
    assert all(p.grad.abs().max() > 0 for name, p in large.named_parameters() if name.endswith("second.weight"))


def test_weights_are_loaded_strictly(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match="no such file"):
        load_super_resolver(path)
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="these are not weights"):
        load_super_resolver(path)
    torch.save(AnatomyExtractor().state_dict(), path)
    with pytest.raises(InputError, match="not the weights of this network"):
        load_super_resolver(path)
    assert start_from(network := SuperResolver("small"), None) is network


@pytest.mark.parametrize("parts", [{}, {"prior": True, "modulation": True}, {"uncertainty": True}], ids=str)
def test_weights_tell_what_they_are_of(parts, tmp_path):
    network = small_network(**parts)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    loaded = load_super_resolver(tmp_path / "model.pt")
    assert [k for k, _ in loaded.named_children()] == [k for k, _ in network.named_children()]
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), network(IMAGE))


def test_the_extractor_may_come_from_a_file_of_its_own(tmp_path):
    path, small = tmp_path / "anatomy.pt", tmp_path / "small.pt"
    extractor = AnatomyExtractor()
    torch.save(extractor.state_dict(), path)
    torch.save(small_network().state_dict(), small)
    network = start_from(SuperResolver("student", prior=True, modulation=True), small, anatomy=path)
    assert all(torch.equal(a, b) for a, b in zip(network.anatomy.parameters(), extractor.parameters(), strict=True))
    assert torch.allclose(network(IMAGE), small_network()(IMAGE), atol=1e-5)
    start_from(SuperResolver("small"), None, anatomy=path)  # a network without an extractor needs none
    with pytest.raises(InputError, match="nor of a smaller one"):
        start_from(SuperResolver("small"), path)
