"""Training of a mixture of experts: the diffusion step, and what makes experts and gate specialise."""

from collections.abc import Callable, Mapping

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.nn import functional as F

from ..compute import autocast
from ..losses import gradient_difference
from ..networks.experts import MixtureDenoiser
from ..regions import region_shares
from .diffusion import DiffusionStep, Example

WEIGHTS = {"expert": 0.3, "anatomy": 1.0, "agreement": 0.02, "balance": 0.02, "diversity": 0.02}


class MixtureStep(DiffusionStep):
    """One optimisation step of a SuperResolver whose denoiser is a mixture: ``iteration_update`` of a trainer.

    To the loss of :class:`bundle.engines.diffusion.DiffusionStep`, taken of the mixture, it adds, each with a weight:

    - ``expert``: every expert's error where its share is large, in its own measure (:func:`smooth_error`,
      :func:`gradient_error`, :func:`frequency_error`), at temperature 0, relative to the same measure of the input;
    - ``anatomy``: cross-entropy of the shares and the region that label maps show there (:mod:`bundle.regions`);
    - ``agreement``: cross-entropy of the shares and which expert is nearest to the truth in a small neighbourhood;
    - ``balance``: ``K sum_k s_k^2 - 1`` of the mean shares ``s_k`` of the batch, 0 when all are equal and ``K - 1``
      when one has all (importance loss, Shazeer et al., ICLR 2017);
    - ``diversity``: how far the correlation of the errors of two experts lies above 0.8, so that they differ where
      they are not used too.

    In a part of the steps the mixture is that of sparse routing, so that experts learn to stand in for each other.

    The mean shares and the terms stand in ``engine.state.mixture``, see :class:`bundle.handlers.GateWatch`.

    Args:
        weights: of the terms, where they differ from :data:`WEIGHTS`.
        sharpness: of the agreement; the expert with half the squared error of the others has about the share
            ``2^sharpness`` to one of them.
        routed: share of the steps with sparse routing.
        threshold: of that routing, see :class:`bundle.networks.experts.MixtureDenoiser`.
        share, image_loss, amp, clip: as of the diffusion step.
    """

    def __init__(
        self,
        share: float = 0.75,
        image_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
        sharpness: float = 4.0,
        routed: float = 0.5,
        threshold: float = 0.4,
        amp: bool = True,
        clip: float = 1.0,
    ) -> None:
        super().__init__(share, image_loss, amp, clip)
        unknown = set(weights or {}) - set(WEIGHTS)
        if unknown:
            raise ValueError(f"weights of {', '.join(sorted(unknown))}: allowed are {', '.join(WEIGHTS)}")
        self.weights, self.sharpness = {**WEIGHTS, **(weights or {})}, sharpness
        self.routed, self.threshold = routed, threshold

    def loss(self, engine: SupervisedTrainer, batch: dict[str, Tensor], example: Example) -> Tensor:
        """Loss of the mixture and all terms."""
        network = engine.network
        low, noisy, t, condition = example.low, example.noisy, example.t, example.condition
        with autocast(low.device, self.amp):
            context = network.context(example.view)
            prior, maps = network.guidance(low, example.cells, context, condition, example.fields)
            latent = network.latent.encode(low)
            shares, each = network.denoiser.parts(noisy, latent, t, condition, prior, maps)
        each = each.float()
        output = (self._routed(network.denoiser, shares)[:, :, None] * each).sum(1)
        loss = self.of_output(engine, example, output)
        errors = (each - example.target[:, None]).square()
        terms = {
            "anatomy": anatomy_term(shares, torch.as_tensor(batch["tissue"]).to(low.device)),
            "agreement": agreement_term(shares, errors.detach(), self.sharpness),
            "balance": len(shares[0]) * shares.mean((0, 2, 3, 4)).square().sum() - 1,
            "diversity": diversity_term(each - example.target[:, None]),
        }
        if example.fixed:
            terms["expert"] = self._expert_term(network, example, shares, each)
        engine.state.mixture = {
            "shares": shares.detach().mean((0, 2, 3, 4)).tolist(),
            **{name: float(term.detach()) for name, term in terms.items()},
        }
        return loss + example.weights[0] * sum(self.weights[name] * term for name, term in terms.items())

    def _routed(self, denoiser: MixtureDenoiser, shares: Tensor) -> Tensor:
        """The shares, or those of sparse routing."""
        if float(torch.rand(())) >= self.routed:
            return shares
        d, h, w = shares.shape[2:]
        return denoiser.routed(shares, self.threshold)[0][:, :, :d, :h, :w]

    def _expert_term(self, network: torch.nn.Module, example: Example, shares: Tensor, each: Tensor) -> Tensor:
        n = example.fixed
        low, high, noisy, t, condition = (
            x[:n] for x in (example.low, example.high, example.noisy, example.t, example.condition)
        )
        weight = F.interpolate(shares[:n].detach(), low.shape[2:], mode="nearest")
        losses = []
        for k, (measure, floor) in enumerate(_MEASURES):
            image = network.decode_residual(low, network.clean(noisy, each[:n, k], t), condition)
            mask = weight[:, k : k + 1]
            losses.append(measure(image, high, mask) / measure(low, high, mask).clamp_min(floor))
        return torch.stack(losses).mean()


def smooth_error(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Fidelity of smooth regions: the squared error of means over cubes of three voxels, where the mask is.

    Args:
        image, truth, mask: (B, 1, D, H, W).
    """
    error = F.avg_pool3d(image - truth, 3, stride=1, padding=1)
    return (mask * error.square()).sum() / mask.sum().clamp_min(1)


def gradient_error(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """:func:`bundle.losses.gradient_difference` of what the mask shows, per masked voxel."""
    return gradient_difference(mask * image, mask * truth) * mask.numel() / mask.sum().clamp_min(1)


def frequency_error(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean amplitude of the error's spectrum, its frequencies weighted by their magnitude, where the mask is.

    The weight makes up for spectra that fall with frequency (as the focal frequency loss, Jiang et al., ICCV 2021).
    """
    spectrum = torch.fft.rfftn(mask * (image - truth).float(), dim=(2, 3, 4), norm="ortho").abs()
    d, h, w = image.shape[2:]
    axes = torch.fft.fftfreq(d), torch.fft.fftfreq(h), torch.fft.rfftfreq(w)
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    radius = 2 * (z**2 + y**2 + x**2).sqrt().to(image.device)  # 1 at the Nyquist frequency of an axis
    return (radius * spectrum).mean() / mask.square().mean().sqrt().clamp_min(1e-3)


# of every expert, and an error of the input below which a mistake is not held against it more: crops of hardly any
# degradation would else outweigh all others
_MEASURES = ((smooth_error, 1e-4), (gradient_error, 5e-3), (frequency_error, 5e-3))


def anatomy_term(shares: Tensor, tissue: Tensor) -> Tensor:
    """Cross-entropy of shares (B, 3, d, h, w) and the regions of a map of tissue (B, 1, 2d, 2h, 2w).

    Every region counts the same, however large; 0 where the map shows none.
    """
    wanted = region_shares(tissue)
    size = wanted.sum((0, 2, 3, 4))
    entropy = -(wanted * shares.clamp_min(1e-6).log()).sum((0, 2, 3, 4)) / size.clamp_min(1)
    return entropy.sum() / (size > 0).sum().clamp_min(1)


def agreement_term(shares: Tensor, errors: Tensor, sharpness: float) -> Tensor:
    """Cross-entropy of shares and ``softmax(-sharpness log2 e)``, ``e`` errors (B, K, C, d, h, w) nearby."""
    nearby = F.avg_pool3d(errors.mean(2), 5, stride=1, padding=2, count_include_pad=False)
    wanted = torch.softmax(-sharpness * 0.6931 * (nearby + 1e-6).log2(), dim=1)
    return -(wanted * shares.clamp_min(1e-6).log()).sum(1).mean()


def diversity_term(errors: Tensor, allowed: float = 0.8) -> Tensor:
    """Mean over pairs of how far the correlation of errors (B, K, C, d, h, w) lies above what is allowed."""
    flat = errors.transpose(0, 1).flatten(1)
    similarity = F.normalize(flat, dim=1) @ F.normalize(flat, dim=1).T
    pairs = similarity[tuple(torch.triu_indices(len(flat), len(flat), 1))]
    return (pairs - allowed).clamp_min(0).mean()
