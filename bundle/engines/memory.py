"""Training of larger networks and patches in the same memory."""

from types import MethodType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..networks.blocks import ResidualBlock


def recompute_blocks(network: nn.Module) -> None:
    """Make every residual block keep its input only, and compute the rest again on the way back.

    Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016. Same numbers, less memory, a third more time.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.forward = MethodType(_recomputed, block)


def _recomputed(self: ResidualBlock, x: Tensor, embedding: Tensor, modulation: Tensor | None = None) -> Tensor:
    if not torch.is_grad_enabled():
        return ResidualBlock.forward(self, x, embedding, modulation)
    return checkpoint(ResidualBlock.forward, self, x, embedding, modulation, use_reentrant=False)
