from types import SimpleNamespace

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler

from bundle.engines.voxels import VoxelStep


def _engine(network, scheduler):
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 3e-3),
        loss_function=torch.nn.MSELoss(),
        inferer=DiffusionInferer(scheduler),
        state=SimpleNamespace(device=torch.device("cpu")),
    )


def test_steps_lower_the_loss():
    scheduler = DDIMScheduler(num_train_timesteps=100, prediction_type="v_prediction", clip_sample=False)
    network = DiffusionModelUNet(
        3, 2, 1, num_res_blocks=1, channels=(8, 8), attention_levels=(False, False), norm_num_groups=4
    )
    low = torch.rand(4, 1, 8, 8, 8)
    batch = {"image": low, "label": low + 0.1 * torch.roll(low, 1, dims=2)}
    step, engine = VoxelStep(10.0, scheduler, amp=False), _engine(network, scheduler)
    losses = [step(engine, batch)["loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


class _Seen(torch.nn.Module):
    """Keeps what it is given and says nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, timesteps, context=None):
        self.given = x
        return self.weight * x[:, :1]


def test_the_network_sees_the_noisy_residual_beside_the_interpolated_volume():
    scheduler = DDIMScheduler(num_train_timesteps=100, prediction_type="v_prediction")
    low, network = torch.rand(2, 1, 8, 8, 8), _Seen()
    engine = _engine(network, scheduler)
    loss = VoxelStep(16.0, scheduler, amp=False)(engine, {"image": low, "label": low})["loss"]
    assert torch.equal(network.given[:, 1:], low) and network.given.shape == (2, 2, 8, 8, 8)
    share = scheduler.alphas_cumprod  # of a residual that is zero only noise is left, of the share 1 - alpha
    assert network.given[:, :1].std() <= 1.1 * (1 - share).sqrt().max() and 0 < loss <= 1.2
