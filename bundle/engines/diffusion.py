"""Training of the conditional diffusion model."""

from collections.abc import Callable

import torch
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor

from ..compute import autocast
from ..diffusion import add_noise, prediction_target


class DiffusionStep:
    """One optimisation step of a SuperResolver: the ``iteration_update`` of a SupervisedTrainer.

    The batch holds ``image`` (B, 1, D, H, W), ``label`` of the same shape and ``condition`` (B, 6). A fixed share of
    it is trained at temperature 0 (zero noise at t = 1), where the model is a regression; the others get uniform times
    and Gaussian noise. The loss, plain on what is predicted, weights t = 1 like any other time. The head that a crop
    was cut from comes as its coarse view under ``context`` (B, 1, d, h, w); without one the crop itself is the head.
    Guidance maps come under ``fields`` (B, 3, D, H, W); networks that are not guided do without.

    Args:
        share: part of the batch at temperature 0; 1 makes the training a plain regression.
        image_loss: of the decoded images and the labels, added for what is at temperature 0, or None.
        amp: bf16 where it is fast.
        clip: largest norm of the gradient.
    """

    def __init__(
        self,
        share: float = 0.75,
        image_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        amp: bool = True,
        clip: float = 1.0,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share {share}: between 0 and 1")
        self.share, self.image_loss, self.amp, self.clip = share, image_loss, amp, clip

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network = engine.network.train()
        low, high, condition = (
            torch.as_tensor(batch[k]).to(engine.state.device) for k in ("image", "label", "condition")
        )
        if self.share and network.prediction == "epsilon":
            raise ValueError("share must be 0 where the noise is predicted: without noise there is nothing to predict")
        clean = network.encode_residual(low, high, condition)
        t = torch.rand(len(clean), device=clean.device)
        noise = torch.randn_like(clean)
        fixed = int(self.share * len(clean) + torch.rand(()))  # on average the share, for any batch size
        t[:fixed], noise[:fixed] = 1.0, 0.0
        noisy, target = add_noise(clean, noise, t), prediction_target(network.prediction, clean, noise, t)
        engine.optimizer.zero_grad(set_to_none=True)
        with autocast(clean.device, self.amp):
            context = network.context(torch.as_tensor(batch.get("context", low)).to(low))
            cells = torch.as_tensor(batch["cells"]).to(low) if "cells" in batch else None
            fields = torch.as_tensor(batch["fields"]).to(low) if "fields" in batch else None
            output = network.predict(low, noisy, t, context, condition, cells, fields).float()
        loss = engine.loss_function(output, target)
        if self.image_loss is not None and fixed:
            found = network.clean(noisy, output, t)[:fixed]
            loss = loss + self.image_loss(network.decode_residual(low[:fixed], found, condition[:fixed]), high[:fixed])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        engine.optimizer.step()
        return {CommonKeys.LOSS: loss.item()}


@torch.no_grad()
def fit_residual_std(network: torch.nn.Module, loader: torch.utils.data.DataLoader, batches: int = 50) -> None:
    """Set ``network.residual_std`` to the standard deviation of the residual's subbands over the first batches.

    One row per contrast and modality; modalities that do not occur take the row of all together. Contrasts that have
    been measured before keep their rows, since the weights were trained with them.
    """
    energy, contrast, modality = [], [], []
    for index, batch in enumerate(loader):
        if index == batches:
            break
        low, high, condition = (
            torch.as_tensor(batch[k]).to(network.residual_std.device) for k in ("image", "label", "condition")
        )
        energy.append(network.latent.residual(low, high).square().mean((2, 3, 4)))
        contrast.append(condition[:, 0].long())
        modality.append((condition[:, 1] + 2 * condition[:, 2]).long())
    energy, contrast, modality = torch.cat(energy), torch.cat(contrast), torch.cat(modality)
    for c in unmeasured(network):
        for m in range(network.residual_std.shape[1]):
            rows = contrast == c
            if m > 0 and (rows & (modality == m)).any():
                rows = rows & (modality == m)
            if rows.any():
                network.residual_std[c, m] = energy[rows].mean(0).sqrt().clamp_min(1e-4)


def unmeasured(network: torch.nn.Module) -> list[int]:
    """Contrasts whose rows of ``residual_std`` still hold ones."""
    return [c for c, rows in enumerate(network.residual_std) if bool((rows == 1).all())]
