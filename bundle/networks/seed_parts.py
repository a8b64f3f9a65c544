"""The parts around the paper's small two-dimensional networks: anatomy extractor and intensity branch."""

import torch
from torch import Tensor, nn

from .seed import SEED_SIZES, SeedNetwork


class SeedExtractor(nn.Module):
    """A lightweight convolutional network from the input to tissue probabilities and a template (section 3.3 there).

    The template is the intensity that is expected under the probabilities.

    Args:
        tissues: that it tells apart.
        width: channels.
    """

    def __init__(self, tissues: int, width: int = 16) -> None:
        super().__init__()
        self.network = SeedNetwork((1, width, width, tissues))
        self.intensity = nn.Parameter(torch.linspace(0, 1, tissues))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) to the template (B, 1, H, W) and probabilities (B, K, H, W)."""
        tissue = torch.softmax(self.network(image)[0], dim=1)
        return torch.einsum("bkhw,k->bhw", tissue, self.intensity)[:, None], tissue


class SeedModel(nn.Module):
    """One of the paper's networks, with what guides it.

    Args:
        size: row of :data:`bundle.networks.seed.SEED_SIZES`; its first number says whether there is a prior.
        extractor: of the prior, trained before and frozen; None for none.
        modulation: whether an intensity branch scales and shifts the output.
    """

    def __init__(self, size: str, extractor: SeedExtractor | None = None, modulation: bool = False) -> None:
        super().__init__()
        channels = (1 if extractor is None else 2, *SEED_SIZES[size][1:])
        self.core = SeedNetwork(channels)
        self.extractor = None if extractor is None else extractor.requires_grad_(False)
        self.branch = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 3, padding=1))
        if not modulation:
            self.branch = None

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, H, W) to the result (B, 1, H, W) and the core's features."""
        shown = image if self.extractor is None else torch.cat([image, self.extractor(image)[0]], dim=1)
        output, features = self.core(shown)
        if self.branch is not None:
            scale, shift = self.branch(image).chunk(2, dim=1)
            output = output * (1 + scale) + shift
        return output, features
