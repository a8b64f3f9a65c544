"""The three regions of the cerebrum that the experts are for, found in a map of tissue."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks.experts import EXPERTS
from .simulation.tissues import GROUPS

DEPTH = 3  # voxels of white matter on every side of what counts as deep
_WHITE, _CORTEX = (list(GROUPS).index(name) for name in ("WM", "cortical GM"))


def regions(tissue: Tensor) -> Tensor:
    """Where the regions lie, in the order of :data:`bundle.networks.experts.EXPERTS`; they do not overlap.

    The junction is cerebral white matter and cortex within one voxel (in any of 26 directions) of the other; the
    cortex is the rest of the cortex; the centrum semiovale stands for all white matter with nothing else within
    :data:`DEPTH` voxels. White matter in between belongs to none.

    Args:
        tissue: (B, 1, D, H, W), index into ``GROUPS``; other numbers are no tissue.

    Returns:
        (B, 3, D, H, W) boolean.
    """
    white, cortex = tissue == _WHITE, tissue == _CORTEX
    junction = (white & _near(cortex, 1)) | (cortex & _near(white, 1))
    found = {"centrum semiovale": ~_near(~white, DEPTH), "cortex": cortex & ~junction, "junction": junction}
    return torch.cat([found[name] for name in EXPERTS], dim=1)


def region_shares(tissue: Tensor) -> Tensor:
    """How much of every latent voxel (of two voxels along each side) each region fills, (B, 3, D / 2, H / 2, W / 2)."""
    return F.avg_pool3d(regions(tissue).float(), 2)


def _near(mask: Tensor, distance: int) -> Tensor:
    """Voxels that have one of the mask within a distance, along every axis; nothing is known beyond the border."""
    for axis in (2, 3, 4):
        grown, n = mask.clone(), mask.shape[axis]
        for step in range(1, min(distance, n - 1) + 1):
            grown.narrow(axis, step, n - step).logical_or_(mask.narrow(axis, 0, n - step))
            grown.narrow(axis, 0, n - step).logical_or_(mask.narrow(axis, step, n - step))
        mask = grown
    return mask
