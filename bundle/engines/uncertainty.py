"""Training of the log-scale head on a network whose other weights stay as they are."""

import torch
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor

from ..compute import autocast
from ..diffusion import start_time
from ..distributed import average_gradients

_KEYS = ("image", "label", "condition", "context", "cells")


class UncertaintyStep:
    """One step of the head: the ``iteration_update`` of a SupervisedTrainer.

    Minimises the negative log-likelihood of the errors ``e`` of the mean (temperature 0) under a Laplace distribution,
    ``log b + |e| / b``, whose scale ``b`` the head predicts (Kendall and Gal, NeurIPS 2017).

    Args:
        amp: bf16 where it is fast.
    """

    def __init__(self, amp: bool = True) -> None:
        self.amp = amp

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network = engine.network.eval()
        low, high, condition, view, cells = (torch.as_tensor(batch[k]).to(engine.state.device) for k in _KEYS)
        latent = network.latent.encode(low)
        zero, t = torch.zeros_like(latent), torch.full((len(low),), start_time(network.prediction), device=low.device)
        fields = torch.as_tensor(batch["fields"]).to(low) if "fields" in batch else None
        with torch.no_grad(), autocast(low.device, self.amp):
            prior, maps = network.guidance(low, cells, network.context(view), condition, fields)
            output, features = network.denoiser.both(zero, latent, t, condition, prior, maps)
            clean = network.clean(zero, output.float(), t)
            error = (network.decode_residual(low, clean, condition) - high).abs()
        engine.optimizer.zero_grad(set_to_none=True)
        with autocast(low.device, self.amp):
            log_scale = network.scale_head(features, latent, output)
        log_scale = network.scale_head.volume(log_scale)
        loss = (log_scale + error * torch.exp(-log_scale)).mean()
        loss.backward()
        average_gradients(network.parameters())
        engine.optimizer.step()
        return {CommonKeys.LOSS: loss.item()}
