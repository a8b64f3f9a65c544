"""Adaptation of a trained network to scans of a protocol that no simulation knows, without pairs."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from monai.engines import AdversarialTrainer
from monai.losses import PatchAdversarialLoss
from monai.utils import AdversarialKeys, CommonKeys
from torch import Tensor, nn
from torch.nn import functional as F

from ..compute import autocast
from ..consistency import default_operator
from ..diffusion import start_time
from ..geometry import resample
from ..losses import IntensityLoss
from ..networks.anatomy import AnatomyExtractor
from ..networks.super_resolver import SuperResolver

WEIGHTS = {"adversarial": 0.01, "consistency": 1.0, "structure": 0.05, "intensity": 1.0, "pair": 60.0}


class AdversarialStep:
    """One step of generator and discriminator: the ``iteration_update`` of MONAI's AdversarialTrainer.

    The batch holds crops of scans, ``image`` (B, 1, D, H, W) with ``condition``, ``context`` and ``cells``, crops
    of sharp volumes of other people, ``real``, and under ``pair`` degraded crops of these with their ``label``. The
    network, at temperature 0, is asked that

    - ``adversarial``: the discriminator takes its result for sharp (least squares, Mao et al., ICCV 2017);
    - ``consistency``: its result, degraded as the scan is taken to be, is the scan: ``mean |A y - x|`` on the scan's
      own sampling;
    - ``structure``: its tissue stays that of the result before adaptation: cross-entropy of the anatomy extractor's
      probabilities;
    - ``intensity``: so do levels, gradients and histogram, see :class:`bundle.losses.IntensityLoss`;
    - ``pair``: what it was trained for still succeeds: ``mean (y - label)^2`` of the pairs.

    The terms stand in ``engine.state.adaptation``.

    Args:
        network: before adaptation; it is compared with a copy of what it is now.
        extractor: frozen.
        weights: of the terms, where they differ from :data:`WEIGHTS`.
        amp: bf16 where it is fast, for what is not trained.
        clip: largest norm of either gradient.

    Raises:
        ValueError: weights of unknown terms.
    """

    def __init__(
        self,
        network: SuperResolver,
        extractor: AnatomyExtractor,
        weights: Mapping[str, float] | None = None,
        amp: bool = True,
        clip: float = 1.0,
    ) -> None:
        unknown = set(weights or {}) - set(WEIGHTS)
        if unknown:
            raise ValueError(f"weights of {', '.join(sorted(unknown))}: allowed are {', '.join(WEIGHTS)}")
        self.before, self.extractor = (n.eval().requires_grad_(False) for n in (deepcopy(network), extractor))
        self.weights, self.amp, self.clip = {**WEIGHTS, **(weights or {})}, amp, clip
        self.judge, self.intensity = PatchAdversarialLoss(criterion="least_squares"), IntensityLoss()

    def __call__(self, engine: AdversarialTrainer, batch: Mapping[str, Tensor]) -> dict:
        state = engine.state
        pair = {k: torch.as_tensor(v).to(state.device) for k, v in batch["pair"].items()}
        batch = {k: torch.as_tensor(v).to(state.device) for k, v in batch.items() if k != "pair"}
        with autocast(state.device, self.amp):
            fake = sharpen(state.g_network.train(), batch)
            restored = sharpen(state.g_network, pair)
        state.d_network.train().requires_grad_(False)
        terms = {
            "adversarial": self.judge(state.d_network(fake)[-1], target_is_real=True, for_discriminator=False),
            "consistency": consistency(fake, batch["image"], batch["condition"]),
            **self._kept(batch, fake),
            "pair": F.mse_loss(restored, pair["label"]),
        }
        loss = sum(self.weights[name] * term for name, term in terms.items())
        self._update(state.g_optimizer, state.g_network, loss)
        state.d_network.requires_grad_(True)
        real, made = (state.d_network(x)[-1] for x in (batch["real"], fake.detach()))
        judged = 0.5 * sum(
            self.judge(logits, target_is_real=truth, for_discriminator=True)
            for logits, truth in ((real, True), (made, False))
        )
        self._update(state.d_optimizer, state.d_network, judged)
        state.adaptation = {name: float(term.detach()) for name, term in terms.items()}
        return {CommonKeys.LOSS: float(loss.detach()), AdversarialKeys.DISCRIMINATOR_LOSS: float(judged.detach())}

    def _kept(self, batch: Mapping[str, Tensor], fake: Tensor) -> dict[str, Tensor]:
        """Terms of what must stay as it was."""
        with torch.no_grad(), autocast(fake.device, self.amp):
            first = sharpen(self.before, batch)
            wanted = self._tissue(batch, first)
        with autocast(fake.device, self.amp):
            tissue = self._tissue(batch, fake)
        structure = -(wanted * tissue.clamp_min(1e-6).log()).sum(1).mean()
        return {"structure": structure, "intensity": self.intensity(fake, first)}

    def _tissue(self, batch: Mapping[str, Tensor], image: Tensor) -> Tensor:
        """Probabilities of every other voxel, (B, K, D / 2, H / 2, W / 2)."""
        corners = torch.zeros(len(image), 3, dtype=torch.long, device=image.device)
        context = self.extractor.context(batch["context"])
        return self.extractor.tissue_at(corners, image, batch["cells"], context, batch["condition"])

    def _update(self, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        optimizer.step()


def sharpen(network: SuperResolver, batch: Mapping[str, Tensor]) -> Tensor:
    """The network's result at temperature 0 for crops (B, 1, D, H, W), in fp32."""
    low, condition = batch["image"], batch["condition"]
    noisy = torch.zeros_like(network.latent.encode(low).float())
    t = torch.full((len(low),), start_time(network.prediction), device=low.device)
    output = network.predict(low, noisy, t, network.context(batch["context"]), condition, batch["cells"]).float()
    return network.decode_residual(low, network.clean(noisy, output, t), condition).float()


def consistency(image: Tensor, low_res: Tensor, condition: Tensor) -> Tensor:
    """Mean absolute difference of a result, degraded, and the scan, both on the scan's own sampling.

    The scan is here as it was interpolated, which passes through its samples; a crop's sampling begins where the crop
    does, since a blurred volume may be sampled anywhere. The outermost samples, whose point-spread function reaches
    beyond the crop, do not count.

    Args:
        image: (B, 1, D, H, W), result.
        low_res: (B, 1, D, H, W), the scan on the same grid.
        condition: (B, 6), whose last three say the factors.
    """
    terms = []
    for made, scan, factors in zip(image, low_res, 2 ** condition[:, 3:], strict=True):
        shape = tuple(made.shape[1:])
        low = tuple(max(4, round(n / float(f))) for n, f in zip(shape, factors, strict=True))
        difference = default_operator(shape, low)(made) - resample(scan, low)
        terms.append(difference[:, 1:-1, 1:-1, 1:-1].abs().mean())
    return torch.stack(terms).mean()
