import hashlib
import json
import pickle

import pytest
import torch
from data import ROOT, small_network

from bundle.errors import InputError
from bundle.networks.anatomy import AnatomyExtractor
from bundle.networks.super_resolver import SuperResolver
from bundle.networks.weights import LISTING, grow, load, load_super_resolver, read_weights, start_from, write_weights

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


PARTS = [
    {},
    {"prior": True, "modulation": True},
    {"uncertainty": True},
    {"experts": True},
    {"guided": True, "modulation": True},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_weights_tell_what_they_are_of(parts, tmp_path):
    network = small_network(**parts)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    loaded = load_super_resolver(tmp_path / "model.pt")
    assert [k for k, _ in loaded.named_children()] == [k for k, _ in network.named_children()]
    assert loaded.guided == network.guided
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), network(IMAGE))


def test_the_size_of_a_mixture_is_told_from_its_weights(tmp_path):
    network = SuperResolver("experts", experts=True)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert load_super_resolver(tmp_path / "model.pt").denoiser.widths == network.denoiser.widths


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


def test_every_shipped_file_is_listed_and_is_what_the_list_says():
    listed = json.loads((ROOT / "models" / LISTING).read_text())
    shipped = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (ROOT / "models").glob("*.pt")}
    assert shipped == listed, "write the SHA-256 of every file of models/ into models/sha256.json"


@pytest.fixture
def listed(tmp_path):
    """A listed file of weights that another took the place of."""
    path = tmp_path / "model.pt"
    torch.save(small_network().state_dict(), path)
    (tmp_path / LISTING).write_text(json.dumps({"model.pt": hashlib.sha256(path.read_bytes()).hexdigest()}))
    read_weights(path)
    torch.save(small_network(seed=1).state_dict(), path)
    return path


def test_a_listed_file_that_is_another_is_refused_unless_asked_for(listed):
    with pytest.raises(InputError, match="model.pt: not the weights that were shipped .*--check_weights false"):
        load_super_resolver(listed)
    assert read_weights(listed, check=False)


def test_a_file_of_the_users_own_is_taken(listed):
    own = listed.with_name("own.pt")
    own.write_bytes(listed.read_bytes())
    assert read_weights(own)


def test_weights_that_are_saved_anew_are_listed_anew(listed):
    write_weights(listed, small_network(seed=2).state_dict())
    assert read_weights(listed)


class _Bomb:
    def __reduce__(self):
        return (open, ("bomb", "w"))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Bomb()}, "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": _Bomb()}))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(InputError, match="these are not weights"):
            read_weights(name)
    assert not (tmp_path / "bomb").exists()


def test_a_guided_network_begins_as_the_one_without_maps():
    small = small_network()
    guided = grow(small_network(seed=1, guided=True), small.state_dict())
    tile, noise = IMAGE, torch.zeros(1, 8, 8, 12, 8)
    fields, condition = torch.randn(1, 3, *IMAGE.shape[2:]), guided.default_condition[None]
    with torch.no_grad():
        result = guided.sample(tile, guided.context(tile), noise, condition, 1, None, fields)
    assert torch.allclose(result, small(IMAGE), atol=1e-5)


def test_an_extractor_in_a_file_of_its_own_is_read_with_its_network(tmp_path):
    network = SuperResolver("small", prior=True)
    parts = {True: {}, False: {}}
    for name, value in network.state_dict().items():
        parts[name.startswith("anatomy.")][name.removeprefix("anatomy.")] = value
    torch.save(parts[False], tmp_path / "model.pt")
    with pytest.raises(InputError, match="model.pt: these are not the weights of this network"):
        load(SuperResolver("small", prior=True), tmp_path / "model.pt")
    torch.save(parts[True], tmp_path / "model.anatomy.pt")
    found = load(SuperResolver("small", prior=True), tmp_path / "model.pt").state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_weights_without_a_rule_for_the_width_have_none_and_the_shipped_ones_have_one(tmp_path):
    state = small_network().state_dict()
    del state["width_rule"]
    torch.save(state, tmp_path / "old.pt")
    assert load_super_resolver(tmp_path / "old.pt").width_rule.tolist() == [0, 0]
    assert load_super_resolver(ROOT / "models" / "model.pt").width_rule.tolist() == pytest.approx([0.82, 5.0])
    assert not load_super_resolver(ROOT / "models" / "model_teacher.pt").width_rule.any()
