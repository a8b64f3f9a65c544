"""Training of the conditional diffusion model."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor

from ..compute import autocast
from ..diffusion import add_noise, prediction_target
from ..distributed import average_gradients
from .memory import recompute_blocks


class Example(NamedTuple):
    """A batch as the network is shown it, and its target; the first ``fixed`` rows are at temperature 0.

    ``low`` and ``high`` are (B, 1, D, H, W), ``noisy`` and ``target`` latents, ``view`` and ``cells`` of the heads,
    ``fields`` guidance maps.
    ``weights`` say what part of a batch its rows are, and what part of those at temperature 0.
    """

    low: Tensor
    high: Tensor
    condition: Tensor
    noisy: Tensor
    t: Tensor
    target: Tensor
    view: Tensor
    cells: Tensor | None
    fields: Tensor | None
    fixed: int
    weights: tuple[float, float] = (1.0, 1.0)

    def part(self, rows: slice) -> "Example":
        """Some of its rows."""
        own = min(max(self.fixed - rows.start, 0), rows.stop - rows.start)
        weights = (rows.stop - rows.start) / len(self.low), own / max(self.fixed, 1)
        return Example(*(None if x is None else x[rows] for x in self[:9]), own, weights)


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
        accumulate: parts that a batch is worked through in, one after the other; the step is that of the whole batch.
        recompute: see :func:`bundle.engines.memory.recompute_blocks`.
    """

    def __init__(
        self,
        share: float = 0.75,
        image_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        amp: bool = True,
        clip: float = 1.0,
        accumulate: int = 1,
        recompute: bool = False,
    ) -> None:
        if not 0 <= share <= 1 or accumulate < 1:
            raise ValueError(f"share {share}: between 0 and 1; accumulate {accumulate}: 1 or more")
        self.share, self.image_loss, self.amp, self.clip = share, image_loss, amp, clip
        self.accumulate, self.recompute = accumulate, recompute

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network = engine.network.train()
        if self.recompute:
            recompute_blocks(network)
        if self.share and network.prediction == "epsilon":
            raise ValueError("share must be 0 where the noise is predicted: without noise there is nothing to predict")
        example = self.draw(network, batch, engine.state.device)
        engine.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for rows in _parts(len(example.low), self.accumulate):
            loss = self.loss(engine, {key: values[rows] for key, values in batch.items()}, example.part(rows))
            loss.backward()
            total += loss.item()
        average_gradients(network.parameters())
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        engine.optimizer.step()
        return {CommonKeys.LOSS: total}

    def draw(self, network: torch.nn.Module, batch: dict[str, Tensor], device: torch.device) -> Example:
        """Times and noise for a batch, and what the network has to say of it."""
        low, high, condition = (torch.as_tensor(batch[k]).to(device) for k in ("image", "label", "condition"))
        clean = network.encode_residual(low, high, condition)
        t = torch.rand(len(clean), device=clean.device)
        noise = torch.randn_like(clean)
        fixed = int(self.share * len(clean) + torch.rand(()))  # on average the share, for any batch size
        t[:fixed], noise[:fixed] = 1.0, 0.0
        noisy, target = add_noise(clean, noise, t), prediction_target(network.prediction, clean, noise, t)
        view = torch.as_tensor(batch.get("context", low)).to(low)
        cells = torch.as_tensor(batch["cells"]).to(low) if "cells" in batch else None
        fields = torch.as_tensor(batch["fields"]).to(low) if "fields" in batch else None
        return Example(low, high, condition, noisy, t, target, view, cells, fields, fixed)

    def loss(self, engine: SupervisedTrainer, batch: dict[str, Tensor], example: Example) -> Tensor:
        """Loss of what the network says of an example."""
        network, low, head = engine.network, example.low, (example.cells, example.fields)
        with autocast(low.device, self.amp):
            context = network.context(example.view)
            output = network.predict(low, example.noisy, example.t, context, example.condition, *head).float()
        return self.of_output(engine, example, output)

    def of_output(self, engine: SupervisedTrainer, example: Example, output: Tensor) -> Tensor:
        """Loss of an output, and of the images at temperature 0."""
        network, fixed = engine.network, example.fixed
        rows, images = example.weights
        loss = rows * engine.loss_function(output, example.target)
        if self.image_loss is not None and fixed:
            found = network.clean(example.noisy, output, example.t)[:fixed]
            image = network.decode_residual(example.low[:fixed], found, example.condition[:fixed])
            loss = loss + images * self.image_loss(image, example.high[:fixed])
        return loss


def _parts(rows: int, count: int) -> list[slice]:
    """Slices of ``rows`` in ``count`` parts of nearly the same size, or as many as there are rows."""
    edges = [rows * k // min(count, rows) for k in range(min(count, rows) + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


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
