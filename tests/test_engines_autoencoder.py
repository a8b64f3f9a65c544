from types import SimpleNamespace

import torch

from bundle.engines.autoencoder import AutoencoderStep, PrepareSharp
from bundle.networks.latent import AutoencoderLatent


def test_steps_lower_the_loss_and_the_scale_follows_the_latent():
    torch.manual_seed(0)
    network = AutoencoderLatent((8, 16))
    volume = torch.rand(2, 1, 4, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    engine = SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 3e-3),
        state=SimpleNamespace(device=torch.device("cpu")),
    )
    step, batch = AutoencoderStep(momentum=0.2, amp=False), {"image": volume, "label": volume}
    losses = [step(engine, batch)["loss"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert 0.7 < float(network.encode(volume).std()) < 1.4


def test_validation_compares_the_sharp_volume_with_itself():
    sharp = torch.rand(1, 1, 8, 8, 8)
    image, label, _, extra = PrepareSharp()({"image": 0 * sharp, "label": sharp}, torch.device("cpu"))
    assert torch.equal(image, sharp) and torch.equal(label, sharp) and extra == {}
