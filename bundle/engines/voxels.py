"""Training of what the bundle is compared with: a diffusion U-Net of MONAI on the voxels of the target grid."""

import torch
from monai.engines import SupervisedTrainer
from monai.networks.schedulers import DDIMScheduler
from monai.utils import CommonKeys
from torch import Tensor

from ..compute import autocast


class VoxelStep:
    """One optimisation step of a DiffusionModelUNet: the ``iteration_update`` of a SupervisedTrainer.

    What the sharp volume (``label`` of the batch) has and the interpolated one (``image``) lacks is made noisy, and
    joined to the latter by the trainer's DiffusionInferer; the network learns the velocity, as the bundle's own does.

    Args:
        gain: of the difference, which brings it to about unit standard deviation.
        scheduler: noise path, the same that will sample, with ``v_prediction``.
        amp: bf16 where it is fast; MONAI's own trainer has it on GPUs only.
        clip: largest norm of the gradient.
    """

    def __init__(self, gain: float, scheduler: DDIMScheduler, amp: bool = True, clip: float = 1.0) -> None:
        self.gain, self.scheduler, self.amp, self.clip = gain, scheduler, amp, clip

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        network, device = engine.network.train(), engine.state.device
        low, high = (torch.as_tensor(batch[k]).to(device) for k in ("image", "label"))
        residual = self.gain * (high - low)
        noise = torch.randn_like(residual)
        times = torch.randint(0, self.scheduler.num_train_timesteps, (len(low),), device=device)
        engine.optimizer.zero_grad(set_to_none=True)
        with autocast(device, self.amp):
            output = engine.inferer(residual, network, noise, times, condition=low, mode="concat")
        loss = engine.loss_function(output.float(), self.scheduler.get_velocity(residual, noise, times))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        engine.optimizer.step()
        return {CommonKeys.LOSS: loss.item()}
