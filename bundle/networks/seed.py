"""The small two-dimensional networks of the paper's Table 1 (seed document 000, section 4.4)."""

from collections.abc import Sequence

from torch import Tensor, nn

# channels from input to output: with the anatomical prior as second channel, and without
SEED_SIZES = {"seed teacher": (2, 64, 64, 1), "seed student": (1, 32, 32, 1)}


class SeedNetwork(nn.Module):
    """3x3 convolutions with ReLU between them.

    Args:
        channels: of the input, every layer, and the output.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) to the result (B, 1, H, W) and the features of every layer before it."""
        features: list[Tensor] = []
        h = image
        for index, convolution in enumerate(self.convolutions):
            h = convolution(h)
            if index + 1 < len(self.convolutions):
                h = h.relu()
                features.append(h)
        return h, features
