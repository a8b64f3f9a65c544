"""What a MONAI user would do else, and its quality: diffusion on the voxels of the target grid, sampled in many steps.

A DiffusionModelUNet as wide as the bundle's network (``configs/ablation_voxels.json``) and that network
(arm ``wavelets``) are trained from nothing, for the same processor time, on the same crops of sharp volumes, contrast
``input``. Fifty steps on a whole volume take hours, so all methods are given the same cube out of the middle of a head.
"""

from collections.abc import Mapping, Sequence

import torch
from monai.bundle import ConfigParser
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from ..benchmark.reference import CROP, STEPS, reference
from ..cases import Case, make_case
from ..compute import autocast, pick_device
from ..evaluation import Restorer, classical_methods, network_method, row_of
from ..geometry import resample
from ..job import load_model
from ..measure import measured
from ..networks.weights import load_super_resolver, start_from
from ..scores import image_scores
from .ablation import ROOT

OVERLAY = "ablation_voxels.json"  # of the arm that works on voxels
ARMS = ("wavelets", "voxels")
FACTOR = 2


def load_voxels(path: str) -> DiffusionModelUNet:
    """A network trained by ``configs/ablation_voxels.json``."""
    return start_from(reference(), path).eval()


def settings() -> tuple[DDIMScheduler, float]:
    """Of the training: its noise path, and the gain of the residual."""
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "configs" / OVERLAY))
    return parser.get_parsed_content("scheduler"), parser["residual_gain"]


@torch.no_grad()
def sample(network: DiffusionModelUNet, image: Tensor, steps: int, seed: int = 0) -> Tensor:
    """One sample (1, 1, D, H, W) given the interpolated volume of that shape, by MONAI's DiffusionInferer and DDIM.

    The times are evenly spaced from pure noise on, each where the step before leads to: those of ``set_timesteps`` are
    spaced a little wider than the scheduler steps. With one step it is the mean that the network expects.

    Args:
        network: of :func:`load_voxels`.
        image: interpolated, normalised.
        steps: a number that divides the times of the path, 1,000.
        seed: of the noise.
    """
    scheduler, gain = settings()
    scheduler.set_timesteps(steps)
    last, stride = scheduler.num_train_timesteps - 1, scheduler.num_train_timesteps // steps
    scheduler.timesteps = torch.arange(last, -1, -stride)[:steps]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image)
    with autocast(image.device):
        inferer = DiffusionInferer(scheduler)
        residual = inferer.sample(noise, network, scheduler, conditioning=image, mode="concat", verbose=False)
    return image + residual.float() / gain


def voxel_method(network: DiffusionModelUNet, device: torch.device, steps: int) -> Restorer:
    """Interpolation and the samples' way; nothing else is known to it."""
    network = network.to(device, memory_format=torch.channels_last_3d)
    return lambda case: sample(network, resample(case.low, case.reference.shape).to(device), steps).cpu()


def cut(case: Case, side: int = CROP) -> Case:
    """The cube in the middle of a case whose factors are whole numbers; shorter axes stay whole."""
    fine, coarse = [], []
    for n, factor in zip(case.reference.shape, map(int, case.factors), strict=True):
        length = min(side, n) // factor
        start = (n // factor - length) // 2
        coarse.append(slice(start, start + length))
        fine.append(slice(start * factor, (start + length) * factor))
    return case._replace(
        low=case.low[(..., *coarse)], reference=case.reference[tuple(fine)], mask=case.mask[tuple(fine)]
    )


def measure_voxels(runs: Sequence[Mapping], items: Sequence[Mapping], metrics: Sequence[str]) -> list[dict]:
    """One row per sharp volume and method, protocol A, factor 2, of kind ``real, cubes``."""
    device = pick_device(None)
    classical = classical_methods()
    methods = {(name, 0): classical[name] for name in ("cubic", "IBP")}
    for run in runs:
        if OVERLAY in run["definition"].get("overlays", ()):
            network = load_voxels(run["weights"])
            for steps in (1, STEPS):
                name = f"{run['arm']}, {steps} step{'s' * (steps > 1)}"
                methods[name, run["seed"]] = voxel_method(network, device, steps)
        else:
            methods[run["arm"], run["seed"]] = network_method(load_super_resolver(run["weights"]), device)
    methods["bundle", 0] = network_method(load_model()[0], device)
    rows = []
    for case in (cut(make_case(item["image"], "A", (FACTOR,) * 3)) for item in items):
        for (arm, seed), method in methods.items():
            found = measured(lambda method=method, case=case: method(case)[0, 0], device)
            scores = image_scores(case, found.result, metrics)
            row = row_of(case, arm, found.result, found.seconds, scores, found.gigabytes)
            rows.append({"kind": "real, cubes", "arm": arm, "seed": seed, **row})
    return rows
