"""Seams between tiles, and the speed of the simulation."""

import time

import numpy as np
import torch

from ..geometry import resample
from ..inferer import SuperResolutionInferer
from ..intensity import fit_intensity, percentiles
from ..simulate import scan
from ..simulation.acquisition import Acquisition
from ..simulation.phantom import brain_phantom
from ..simulation.protocol import draw
from ..simulation.rendering import deform, draw_shape, prepare_map, render
from ..simulation.tissues import to_classes


def seams(network: torch.nn.Module, device: torch.device) -> float:
    """What tiles of 96 voxels change at temperature 0, over the range of a simulated head.

    99.9 percentile of the absolute difference from the whole volume, in fp32.
    """
    parameters, spacing = draw(np.random.RandomState(0), "T1w", 1.5, 7.0), [0.5] * 3
    fine = prepare_map(to_classes(brain_phantom()), (1.0, 1.0, 1.0))
    size = [n // 2 // 16 * 8 for n in fine.shape]
    low = scan(render(fine, parameters, spacing)[0], parameters, size)[0][None, None]
    image = resample(fit_intensity(low).normalise(low), [2 * n for n in size]).to(device)
    whole, tiled = (SuperResolutionInferer(amp=False, tile=tile)(image, network) for tile in (10_000, 96))
    return percentiles((tiled - whole).abs(), (99.9,))[0] / float(np.ptp(percentiles(whole, (0.1, 99.9))))


def simulation_speed(spacing: float = 0.7, threads: int = 2) -> float:
    """Voxels of the high-field image per second, for a full pair of a prepared phantom: warped, rendered, acquired."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    fine = prepare_map(to_classes(brain_phantom()), (1.0, 1.0, 1.0))
    high_shape = [round(n * 0.5 / spacing) for n in fine.shape]
    random, seconds = np.random.RandomState(0), []
    for _ in range(3):
        parameters = draw(random, "T1w", 1.5, 7.0)
        start = time.perf_counter()
        low, high = render(deform(fine, draw_shape(random), [0.5] * 3), parameters, [0.5] * 3)
        Acquisition()(high, high_shape)
        scan(low, parameters, [n // 2 for n in high_shape])
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return float(np.prod(high_shape)) / min(seconds)
