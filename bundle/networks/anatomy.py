"""The anatomy prior: tissue probabilities and a 7 T template from the low-resolution input alone."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..simulation.protocol import MODALITIES, expected_signals
from ..simulation.tissues import CLASSES, GROUPS
from .context import ContextEncoder, SurroundEncoder, coarse_view
from .denoiser import UNet
from .latent import HaarLatent

TISSUES = tuple(GROUPS)


class AnatomyPrior(NamedTuple):
    """Template (B, 1, D, H, W), in the input's normalised units, and tissue probabilities (B, K, D, H, W)."""

    template: Tensor
    tissue: Tensor


class AnatomyExtractor(nn.Module):
    """Lightweight network from the input to :class:`AnatomyPrior`.

    A U-Net looks at the tile; at its coarsest scale joins what a second branch sees in a coarse surround of the tile,
    since muscle and white matter differ by where they are. The template is the 7 T intensity that is expected under the
    probabilities, ``level * sum_k m_k i_k``: ``i_k`` is the signal of tissue k at 7 T relative to white matter, one row
    for T1w and one for T2w, and ``level`` how bright white matter is in this scan, read from the coarse view of the
    head. No bias field or other map from elsewhere enters.

    Args:
        widths: channels per scale, the finest at half the input's resolution, the coarsest at that of a cell.
        blocks: residual blocks per scale.
        context_size: length of the vector that sums up the head.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (1, 2, 2), context_size: int = 32
    ) -> None:
        super().__init__()
        self.latent = HaarLatent()
        self.context_size = context_size
        self.encoder = ContextEncoder(context_size)
        self.around = SurroundEncoder(widths[-1])
        self.embedding = nn.Sequential(nn.Linear(context_size + 6, context_size), nn.SiLU())
        self.trunk = UNet(self.latent.channels, 32, widths, blocks, context_size, norm=True)
        self.exit = nn.ConvTranspose3d(32, len(TISSUES), 2, stride=2)
        self.level = nn.Linear(context_size, 1)
        main = [CLASSES.index(group[0]) for group in GROUPS.values()]
        signals = torch.stack([expected_signals(modality)[main] for modality in MODALITIES])
        self.intensity = nn.Parameter(signals)
        self.multiple = self.latent.factor * 2 ** (len(widths) - 1)

    @torch.jit.export
    def context(self, volume: Tensor) -> Tensor:
        """What the whole head (B, 1, D, H, W) tells every tile, (B, context_size)."""
        return self.encoder(coarse_view(volume))

    def forward(self, image: Tensor, cells: Tensor, context: Tensor, condition: Tensor) -> AnatomyPrior:
        """Prior of a tile.

        Args:
            image: (B, 1, D, H, W), the input on the target grid, normalised; sides multiples of ``self.multiple``.
            cells: (B, 1, D / CELL + 2 REACH, ...), the tile's part of :func:`bundle.networks.context.surround`.
            context: (B, context_size), of the whole head.
            condition: (B, 6); inputs that are not T2w are taken for T1w.
        """
        tissue = torch.softmax(self.exit(self.features(image, cells, context, condition)).float(), dim=1)
        return AnatomyPrior(self.template(tissue, context, condition)[0], tissue)

    def features(self, image: Tensor, cells: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """What the tissue is read from, (B, 32, D / 2, H / 2, W / 2); arguments as of :meth:`forward`."""
        embedding = self.embedding(torch.cat([context, condition.to(context.dtype)], dim=1))
        return F.silu(self.trunk(self.latent.encode(image), embedding, None, self.around(cells)))

    @torch.jit.ignore
    def tissue_at(self, corners: Tensor, image: Tensor, cells: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """Probabilities (B, K, D / 2, H / 2, W / 2) of every other voxel along each axis: what training needs.

        The same as those of :meth:`forward` there, for an eighth of the work at full resolution.

        Args:
            corners: (B, 3) of 0 and 1, the first voxel taken; other arguments as of :meth:`forward`.
        """
        weight = self.exit.weight[(slice(None), slice(None), *corners.T)]  # (32, K, B)
        features = self.features(image, cells, context, condition)
        logits = torch.einsum("bcdhw,ckb->bkdhw", features, weight) + self.exit.bias[:, None, None, None]
        return torch.softmax(logits.float(), dim=1)

    def template(self, tissue: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The template (B, 1, D, H, W) of tissue probabilities, and the level (B, 1)."""
        level = F.softplus(self.level(context)).float()
        intensity = level * self.intensity[condition[:, 2].long()]
        return torch.einsum("bkdhw,bk->bdhw", tissue, intensity)[:, None], level
