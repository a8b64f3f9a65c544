"""The paper's three experiments at the paper's scale (seed document 000, sections 4 and 5).

64 x 64 simulated pairs, batches of 8, Adam at 1e-4, the channels of its Table 1, one epoch, seed 42; two more seeds
show how much of a difference is luck. Numbers stand in ``configs/ablation_seed.json``. As in section 5.2 the networks
are trained by an L1 loss of the result, in one step.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.metrics import SSIMMetric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from ..metrics import dice, histogram_distance, psnr
from ..networks.seed_parts import SeedExtractor, SeedModel
from .ablation import ROOT
from .seed_data import TISSUES, Pairs, make_pairs

GRADIENT = 0.5  # weight of the gradient consistency in the experiment on intensity modulation
ARMS = {  # size, prior, modulation, gradient consistency
    "baseline": ("seed teacher", False, False, False),
    "with prior": ("seed teacher", True, False, False),
    "without modulation": ("seed teacher", True, False, True),
    "with modulation": ("seed teacher", True, True, True),
    "student alone": ("seed student", False, False, False),
    "student distilled": ("seed student", False, False, False),
}
TEACHER = "with modulation"


def seed_settings() -> dict:
    """Numbers of ``configs/ablation_seed.json``."""
    return json.loads((ROOT / "configs" / "ablation_seed.json").read_text())


def run_seed_experiments(
    folder: Path, settings: Mapping, report: Callable[[list[dict], dict], None] | None = None
) -> tuple[list[dict], dict]:
    """Train all arms with all seeds.

    Args:
        folder: of the TensorBoard logs.
        settings: see :func:`seed_settings`.
        report: called after every seed with what is returned so far.

    Returns:
        One row per arm and seed; and of the first seed the losses and test results by arm, for the figures.
    """
    size, planes, count = (settings[k] for k in ("image_size", "planes_per_head", "phantoms"))
    training = make_pairs(settings["training_heads"], planes, count, size, seed=1)
    testing = make_pairs(settings["testing_heads"], planes, settings["testing_heads"], size, seed=2)
    rows, kept = [], {}
    for seed in settings["seeds"]:
        torch.manual_seed(seed)
        extractor = train_extractor(training, settings)
        models: dict[str, SeedModel] = {}
        for arm in ARMS:
            torch.manual_seed(seed)
            logs = folder / f"{arm}-{seed}"
            models[arm], losses = _train(arm, models, extractor, training, settings, logs)
            scores = score(models[arm], extractor, testing)
            rows.append({"arm": arm, "seed": seed, **scores, "last_loss": _tail(losses)})
            _log(logs, scores)
            if seed == settings["seeds"][0]:
                kept[arm] = {"losses": losses, "result": _result(models[arm], testing.low), "truth": testing.high}
        if report is not None:
            report(rows, kept)
    return rows, kept


def _log(folder: Path, scores: Mapping) -> None:
    """PSNR, SSIM, Dice and the rest for TensorBoard."""
    with SummaryWriter(str(folder)) as writer:
        for name, value in scores.items():
            writer.add_scalar(f"test/{name}", value)


def train_extractor(pairs: Pairs, settings: Mapping) -> SeedExtractor:
    """The anatomy extractor: weakly supervised by the tissue of the phantoms, then the template by the 7 T images."""
    network = SeedExtractor(len(TISSUES))
    optimizer = torch.optim.Adam(network.parameters(), settings["prior_learning_rate"])
    overlap = DiceLoss(to_onehot_y=True, include_background=False, batch=True)
    for _ in range(settings["prior_epochs"]):
        for rows in _batches(len(pairs.low), settings["batch_size"]):
            template, tissue = network(pairs.low[rows])
            truth = pairs.tissue[rows][:, None]
            loss = F.nll_loss(tissue.clamp_min(1e-6).log(), truth[:, 0]) + overlap(tissue, truth)
            _step(optimizer, loss + F.l1_loss(template, pairs.high[rows]))
    return network.eval()


def _train(
    arm: str, models: Mapping, extractor: SeedExtractor, pairs: Pairs, settings: Mapping, logs: Path
) -> tuple[SeedModel, list[float]]:
    """One arm: its network and its loss at every step, which TensorBoard gets too."""
    size, prior, modulation, gradient = ARMS[arm]
    network = SeedModel(size, extractor if prior else None, modulation)
    distil = _distillation(network, models[TEACHER], settings) if arm == "student distilled" else None
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(
        parameters + (list(distil[1].parameters()) if distil else []), settings["learning_rate"]
    )
    losses, writer = [], SummaryWriter(str(logs))
    for _ in range(settings["epochs"]):
        for rows in _batches(len(pairs.low), settings["batch_size"]):
            low, high = pairs.low[rows], pairs.high[rows]
            output, features = network(low)
            loss = distil[0](low, output, features) if distil else F.l1_loss(output, high)
            if gradient:
                loss = loss + GRADIENT * gradient_consistency(output, high)
            _step(optimizer, loss)
            losses.append(float(F.l1_loss(output.detach(), high)))
            writer.add_scalar("loss/l1", losses[-1], len(losses))
    writer.close()
    return network.eval(), losses


def _distillation(student: SeedModel, teacher: SeedModel, settings: Mapping) -> tuple[Callable, nn.Module]:
    """Equation 1 of section 5.4, ``alpha |y_s - y_t|_1 + beta |P f_s - f_t|^2``, and the projection P of features."""
    widths = [(s.out_channels, t.out_channels) for s, t in zip(_layers(student), _layers(teacher), strict=True)]
    projections = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in widths)

    def loss(low: Tensor, output: Tensor, features: list[Tensor]) -> Tensor:
        with torch.no_grad():
            wanted, wanted_features = teacher(low)
        aligned = [F.mse_loss(p(f), t) for p, f, t in zip(projections, features, wanted_features, strict=True)]
        return settings["alpha"] * F.l1_loss(output, wanted) + settings["beta"] * torch.stack(aligned).mean()

    return loss, projections


def _layers(model: SeedModel) -> list[nn.Conv2d]:
    return list(model.core.convolutions)[:-1]


def gradient_consistency(output: Tensor, target: Tensor) -> Tensor:
    """Mean over both axes of ``mean |d output - d target|``."""
    difference = output - target
    return (difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()) / 2


def _batches(count: int, size: int) -> list[Tensor]:
    return [b for b in torch.randperm(count).split(size) if len(b) == size]


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _result(network: SeedModel, low: Tensor) -> Tensor:
    return torch.cat([network(part)[0] for part in low.split(32)])


@torch.no_grad()
def score(network: SeedModel, extractor: SeedExtractor, pairs: Pairs) -> dict[str, float]:
    """Quality on test planes, Dice of the extractor's masks of result and truth, and cost of a batch of eight."""
    found, mask = _result(network, pairs.low), pairs.high > 0.05
    span = float(np.ptp(np.percentile(pairs.high[mask].numpy(), (0.1, 99.9))))
    similarity = SSIMMetric(spatial_dims=2, data_range=span)(found, pairs.high).mean()
    ours, truth = (torch.cat([extractor(p)[1] for p in v.split(32)]).argmax(1) for v in (found, pairs.high))
    overlaps = [dice(ours == k, truth == k) for k in range(1, len(TISSUES))]
    row = {"psnr": psnr(found, pairs.high, mask, span), "ssim": float(similarity), "dice": float(np.mean(overlaps))}
    row |= {"histogram": histogram_distance(found, pairs.high, mask, span)}
    row |= {"gradient": float(gradient_consistency(found, pairs.high)) / span}
    row |= {"latency_ms": latency(network, pairs.low[:8]), "parameters": sum(p.numel() for p in network.parameters())}
    features = network(pairs.low[:8])[1]
    row["features_mb"] = sum(f.numel() for f in features) * 4 / 1e6
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


@torch.no_grad()
def latency(network: nn.Module, batch: Tensor, repeats: int = 15) -> float:
    """Milliseconds of processor time of one pass on one thread: the best of several."""
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(repeats + 1):  # the first one warms up
        start = time.process_time()
        network(batch)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 1000 * min(times[1:])


def _tail(losses: list[float]) -> float:
    """Mean loss of the last tenth of an epoch."""
    return round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 5)
