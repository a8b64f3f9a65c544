import pytest
import torch

from bundle.networks.gate import TOKEN, WINDOW, Gate

SIDE = TOKEN * WINDOW
CONDITION = torch.tensor([[1.0, 1, 0, 1, 1, 1]])


def _gate(seed=0):
    torch.manual_seed(seed)
    gate = Gate().eval()
    torch.nn.init.normal_(gate.logits.weight, std=0.2)
    return gate


@pytest.mark.parametrize("size", [(16, 16, 16), (20, 7, 33)])
def test_shares_sum_to_one_everywhere_for_any_size(size):
    with torch.no_grad():
        shares = _gate()(torch.randn(2, 8, *size), CONDITION.expand(2, -1))
    assert shares.shape == (2, 3, *size) and shares.min() >= 0
    assert torch.allclose(shares.sum(1), torch.ones(2, *size), atol=1e-6)


def test_shares_are_smooth_where_voxels_give_no_evidence_of_their_own():
    gate = _gate()
    torch.nn.init.zeros_(gate.evidence.logits.weight)
    with torch.no_grad():
        shares = gate(torch.randn(1, 8, SIDE, SIDE, SIDE), CONDITION)
    steps = torch.cat([shares.diff(dim=axis).abs().flatten() for axis in (2, 3, 4)])
    assert steps.max() < 0.3 and shares.std() > 0.05  # four voxels from one token to the next


def test_a_token_sees_the_other_tokens_of_its_window_and_patches_of_three_sizes():
    gate, latent = _gate(), torch.randn(1, 8, 2 * SIDE, SIDE, SIDE)
    latent.requires_grad_()
    tokens = gate.patches(latent)
    gate.attend(tokens)[0, :, 0, 0, 0].pow(2).sum().backward(retain_graph=True)
    seen = latent.grad.abs().sum((0, 1, 3, 4)) > 0
    assert seen[: SIDE + 4].all() and not seen[SIDE + 4 :].any()  # the window, and what its last token sees beyond
    latent.grad = None
    tokens[0, :, 2, 2, 2].pow(2).sum().backward()
    seen = (latent.grad.abs().sum((0, 1, 3, 4)) > 0).nonzero()
    assert (seen.min(), seen.max()) == (2 * TOKEN - 4, 3 * TOKEN + 3)  # 12 voxels about its own four


def test_tiles_on_the_grid_of_windows_agree_with_the_whole():
    gate, latent = _gate(), torch.randn(1, 8, 3 * SIDE, SIDE, SIDE)
    with torch.no_grad():
        whole, part = gate(latent, CONDITION), gate(latent[:, :, SIDE:], CONDITION)
    inner = slice(SIDE, None)  # of the part, but for the windows that touch its border
    assert torch.allclose(whole[:, :, 2 * SIDE + 4 :], part[:, :, inner][:, :, 4:], atol=1e-5)


def test_the_condition_has_a_say():
    gate, latent = _gate(), torch.randn(1, 8, 16, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(gate(latent, CONDITION), gate(latent, 1 - CONDITION), atol=1e-3)
