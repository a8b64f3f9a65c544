"""What a learned latent can hold of a true residual, which networks that work in it learn to say."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cases import Case
from ..evaluation import Restorer
from ..networks.latent import AutoencoderLatent
from ..networks.weights import load

OVERLAY = "train_autoencoder.json"  # of the arm that trains the latent itself


def limit_method(path: str, device: torch.device) -> Restorer:
    """A method that knows the truth and says its residual in a learned latent: what comes back is what that holds.

    Args:
        path: weights of an AutoencoderLatent.
        device: where it runs.
    """
    latent = load(AutoencoderLatent(), path).to(device)

    @torch.no_grad()
    def restore(case: Case) -> Tensor:
        low, high = case.interpolated.to(device), case.axes.enter(case.reference[None, None]).to(device)
        padding = [v for n in reversed(low.shape[2:]) for v in (0, n % latent.factor)]
        low, high = (F.pad(image, padding, mode="replicate") for image in (low, high))
        held = latent.apply_residual(low, latent.residual(low, high))
        inner = [slice(n - extra) for n, extra in zip(held.shape[2:], padding[::-2], strict=True)]
        return case.axes.leave(held[(..., *inner)]).cpu()

    return restore
