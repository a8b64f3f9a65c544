"""The guidance maps of an image: what corrections of shading and distortion would change, and how strong they are."""

import torch
from torch import Tensor

from .unwarping import VoxelField, apply_field


def guidance_maps(image: Tensor, log_bias: Tensor | None = None, field: VoxelField | None = None) -> Tensor:
    """(3, D, H, W), in the order of :data:`bundle.networks.super_resolver.FIELDS`; zero where there is nothing to do.

    The first is the image without shading and distortion, less the image; the others are logarithms of the shading and
    of the Jacobian determinant, both where the voxel is.

    Args:
        image: (1, D, H, W), normalised.
        log_bias: (1, D, H, W), of the image as it is, or None.
        field: of :func:`bundle.unwarping.unwarping_field`, or None.
    """
    nothing = torch.zeros_like(image)
    corrected = image if log_bias is None else image * torch.exp(-log_bias)
    if field is not None:
        corrected = apply_field(corrected, field, order=1)
    log_jacobian = nothing if field is None else field.log_jacobian.to(image)
    return torch.cat([corrected - image, nothing if log_bias is None else log_bias.to(image), log_jacobian])
