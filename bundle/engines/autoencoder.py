"""Training of the learned latent."""

import torch
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor

from ..compute import autocast


class AutoencoderStep:
    """One optimisation step of an AutoencoderLatent: the ``iteration_update`` of a SupervisedTrainer.

    Sharp and interpolated volumes alike (``label`` and ``image`` of the batch) are to come back: ``mean |D(z) - x|``
    with z drawn from the encoder's normal distribution, plus ``kl_weight`` times its Kullback-Leibler divergence
    from the standard one. ``scale`` follows the standard deviation of the means as a running mean.

    Args:
        kl_weight: of the divergence, which is a mean over voxels and channels.
        momentum: of the running scale.
        amp: bf16 where it is fast.
        clip: largest norm of the gradient.
    """

    def __init__(self, kl_weight: float = 1e-4, momentum: float = 0.01, amp: bool = True, clip: float = 1.0) -> None:
        self.kl_weight, self.momentum, self.amp, self.clip = kl_weight, momentum, amp, clip

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network = engine.network.train()
        volumes = torch.cat([torch.as_tensor(batch[k]) for k in ("image", "label")]).to(engine.state.device)
        engine.optimizer.zero_grad(set_to_none=True)
        with autocast(volumes.device, self.amp):
            restored, mean, sigma = network.autoencoder(volumes)
        mean, sigma = mean.float(), sigma.float()
        divergence = 0.5 * (mean.square() + sigma.square() - 2 * sigma.log() - 1).mean()
        loss = (restored.float() - volumes).abs().mean() + self.kl_weight * divergence
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        engine.optimizer.step()
        network.scale.lerp_(1 / mean.detach().std(), self.momentum)
        return {CommonKeys.LOSS: loss.item()}


class PrepareSharp(PrepareBatch):
    """Validation batch of an evaluator: the sharp volume, as input and as truth."""

    def __call__(
        self, batchdata: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: object
    ) -> tuple:
        """Image and label, no further arguments."""
        sharp = torch.as_tensor(batchdata["label"]).to(device, non_blocking=non_blocking)
        return sharp, sharp, (), {}
