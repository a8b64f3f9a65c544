"""What a MONAI user would do else: a diffusion U-Net on the voxels of the target grid, sampled in 50 steps."""

import torch
from monai.networks.nets import DiffusionModelUNet

from ..compute import autocast
from ..networks.super_resolver import SIZES, SuperResolver
from .machine import best_time
from .network import flop_of

STEPS = 50
CROP = 96  # voxels along the side of what a step is measured on


def reference(size: str = "student") -> DiffusionModelUNet:
    """MONAI's DiffusionModelUNet as wide and as deep as the bundle's, input joined to the noisy image, no attention."""
    widths, blocks = SIZES[size]
    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=1,
        channels=widths,
        num_res_blocks=blocks,
        attention_levels=[False] * len(widths),
        num_head_channels=widths,
    ).eval()


@torch.no_grad()
def compare_step(network: SuperResolver, device: torch.device, crop: int = CROP, repeats: int = 3) -> dict:
    """Seconds of one step of both on the same voxels, one after the other, at the precision that is fastest here.

    On a processor they are seconds of a core. The time of a step is proportional to the voxels; 50 steps of a whole
    volume are computed from it.
    """
    other = reference().to(device, memory_format=torch.channels_last_3d)
    image = torch.rand((1, 2, crop, crop, crop), device=device).to(memory_format=torch.channels_last_3d)
    t, tile = torch.ones(1, device=device), image[:, :1].contiguous()
    noisy, context, condition = network.latent.encode(tile), network.context(tile), network.default_condition[None]

    def theirs() -> None:
        with autocast(device):
            other(image, t)

    def ours() -> None:
        with autocast(device):
            network.predict(tile, noisy, t, context, condition)

    step, own = (best_time(call, repeats, device).steady for call in (theirs, ours))
    plain = best_time(lambda: other(image, t), 1, device).steady
    return {
        "crop": crop,
        "DiffusionModelUNet_step_s": round(step, 4),
        "DiffusionModelUNet_step_fp32_s": round(plain, 4),
        "ours_step_s": round(own, 4),
        "times_faster_per_step": round(step / own, 2),
        "ours_FLOP_per_voxel": round(flop_of(network, device)),
        "DiffusionModelUNet_parameters": sum(p.numel() for p in other.parameters()),
        "ours_parameters": sum(p.numel() for p in network.denoiser.parameters()),
        "DiffusionModelUNet_s_per_megavoxel_50_steps": round(STEPS * step / crop**3 * 1e6, 2),
    }
