"""Training of the anatomy extractor: weakly supervised on label maps, self-supervised on volumes without labels."""

import torch
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.losses import DiceLoss
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn import functional as F

from ..augmentation import UNKNOWN
from ..compute import autocast
from ..networks.anatomy import AnatomyExtractor

_KEYS = ("image", "label", "condition", "tissue", "context", "cells", "level")


class PriorStep:
    """One optimisation step of an AnatomyExtractor: the ``iteration_update`` of a SupervisedTrainer.

    Examples rendered from label maps know their tissue: cross-entropy plus Dice on the probabilities; pairs also know
    the 7 T volume: squared error of the template (through the intensities and the level, not the probabilities) and of
    the logarithm of the level. Other examples have two views of one real volume, sharp and degraded: a mean teacher
    (Tarvainen and Valpola, NeurIPS 2017) looks at the sharp one, and the network, on the degraded view with another
    contrast and mirrored, has to say the same. That term grows over the iterations of ``ramp``: before, the teacher
    knows nothing. Every step judges one eighth of the voxels, on a grid of every other one whose corner is drawn
    for each example: neighbours say much the same.

    Args:
        teacher: running mean of the network.
        consistency: weight of the mean teacher's term.
        ramp: iteration at which the term begins, and at which its weight is reached.
        amp: bf16 where it is fast.
        clip: largest norm of the gradient.
    """

    def __init__(
        self,
        teacher: nn.Module,
        consistency: float = 1.0,
        ramp: tuple[int, int] = (1000, 2000),
        amp: bool = True,
        clip: float = 1.0,
    ) -> None:
        self.teacher, self.consistency, self.ramp, self.amp, self.clip = teacher, consistency, ramp, amp, clip
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, batch=True)

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network = engine.network.train()
        batch = {k: torch.as_tensor(batch[k]).to(engine.state.device) for k in _KEYS}
        known = (batch["tissue"] != UNKNOWN).all((1, 2, 3, 4))
        begin, end = self.ramp
        weight = self.consistency * min(1.0, max(0.0, (engine.state.iteration - begin) / (end - begin)))
        if weight == 0:
            batch, known = {k: v[known] for k, v in batch.items()}, known[known]
        if len(known) == 0:
            return {CommonKeys.LOSS: 0.0}
        engine.optimizer.zero_grad(set_to_none=True)
        shown, mirrored = _disguise(batch, ~known)
        corners = _corners(shown["image"])
        with autocast(engine.state.device, self.amp):  # all in one pass: batch normalisation has to see both kinds
            context = network.context(shown["context"])
            tissue = network.tissue_at(corners, shown["image"], shown["cells"], context, shown["condition"])
        loss = torch.zeros((), device=engine.state.device)
        if known.any():
            rows = {k: v[known] for k, v in batch.items()}
            loss = loss + self._supervised(network, rows, tissue[known], context[known].float(), corners[known])
        if not known.all():
            rows = {k: v[~known] for k, v in batch.items()}
            loss = loss + weight * self._consistent(rows, tissue[~known], corners[~known], mirrored)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        engine.optimizer.step()
        return {CommonKeys.LOSS: loss.item()}

    def _supervised(
        self, network: AnatomyExtractor, batch: dict[str, Tensor], tissue: Tensor, context: Tensor, corners: Tensor
    ) -> Tensor:
        truth, label = (_every_other(batch[k], corners) for k in ("tissue", "label"))
        loss = F.nll_loss(tissue.clamp_min(1e-6).log(), truth[:, 0].long()) + self.dice(tissue, truth)
        pair = torch.isfinite(batch["level"])
        if pair.any():
            template, level = network.template(tissue.detach(), context, batch["condition"])
            error = (template - label)[pair].square().mean()
            loss = loss + error + (level[pair, 0].log() - batch["level"][pair].log()).square().mean()
        return loss

    def _consistent(self, batch: dict[str, Tensor], tissue: Tensor, corners: Tensor, mirrored: bool) -> Tensor:
        if mirrored:
            tissue, corners = tissue.flip(2), corners ^ corners.new_tensor([1, 0, 0])
        with torch.no_grad(), autocast(tissue.device, self.amp):
            context = self.teacher.context(batch["context"])
            target = self.teacher.tissue_at(corners, batch["label"], batch["cells"], context, batch["condition"])
        return -(target * tissue.clamp_min(1e-6).log()).sum(1).mean()


def _disguise(batch: dict[str, Tensor], rows: Tensor) -> tuple[dict[str, Tensor], bool]:
    """The batch with another contrast in some rows, and their left and right mirrored half the time, and whether."""
    mirrored = bool(torch.rand(()) < 0.5)
    gamma = torch.empty((int(rows.sum()), 1, 1, 1, 1), device=rows.device).uniform_(-0.3, 0.3).exp()
    shown = dict(batch)
    for key in ("image", "context", "cells"):
        volumes = batch[key][rows]
        volumes = volumes.sign() * volumes.abs() ** gamma
        shown[key] = batch[key].clone()
        shown[key][rows] = volumes.flip(2) if mirrored and key != "context" else volumes
    return shown, mirrored


def _corners(volumes: Tensor) -> Tensor:
    """Where the grid of every other voxel begins in each of B volumes: (B, 3) of 0 and 1."""
    return torch.randint(2, (len(volumes), 3), device=volumes.device)


def _every_other(volumes: Tensor, corners: Tensor) -> Tensor:
    """(B, C, D, H, W) to (B, C, D / 2, H / 2, W / 2)."""
    pairs = zip(volumes, corners.tolist(), strict=True)
    return torch.stack([volume[(..., *(slice(c, None, 2) for c in corner))] for volume, corner in pairs])


class PrepareLabels(PrepareBatch):
    """Validation batch of an evaluator: image, true tissue, and what :class:`bundle.tissue.AnatomyInferer` wants."""

    def __call__(
        self, batchdata: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: object
    ) -> tuple:
        """Image, label, no positional and three keyword arguments of the inferer."""
        data = {k: torch.as_tensor(batchdata[k]).to(device, non_blocking=non_blocking) for k in _KEYS}
        return data["image"], data["tissue"], (), {k: data[k] for k in ("condition", "context", "cells")}
