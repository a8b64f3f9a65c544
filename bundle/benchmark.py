"""Seconds and memory on the machine at hand."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .compute import has_fast_bf16, pick_device
from .geometry import Grid, resample, target_grid
from .inferer import SuperResolutionInferer
from .intensity import fit_intensity, percentiles
from .io import prepare_output, write_json, write_volume
from .job import load_model
from .simulate import scan
from .simulation.acquisition import Acquisition
from .simulation.phantom import brain_phantom
from .simulation.protocol import draw
from .simulation.rendering import deform, draw_shape, prepare_map, render
from .simulation.tissues import to_classes

SIZES = ((192, 224, 192), (256, 320, 256))

# runs the main job in a process of its own and prints the peak memory of that process in kB
_CHILD = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); \
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def benchmark(folder: Path, sizes: Sequence[Sequence[int]] | None = None, model: str | None = None) -> None:
    """Print a table and write ``benchmark.json``.

    Per output size: the network's seconds (best of three, bf16 where it is fast), the same in fp32, in tiles of 128,
    and the whole command from its start to the saved file with the peak memory of that process (of the shipped
    network only). Then the seams between tiles, and the speed of the simulation.
    """
    folder = prepare_output(folder)
    device = pick_device(None)
    network = load_model(model)[0].to(device, memory_format=torch.channels_last_3d)
    rows = []
    for size in sizes or SIZES:
        image = torch.rand((1, 1, *size), device=device)
        row = {"output": "x".join(map(str, size))}
        row["model_s"] = _best(SuperResolutionInferer(), image, network)
        row["fp32_s"] = _best(SuperResolutionInferer(amp=False), image, network, repeats=1)
        row["tiles_s"] = _best(SuperResolutionInferer(tile=128), image, network, repeats=1)
        if model is None:
            row["command_s"], row["command_peak_GB"] = _command(size)
        rows.append(row)
        print(" | ".join(f"{k} {v if isinstance(v, str) else f'{v:.2f}'}" for k, v in row.items()), flush=True)
    seam = seams(network, device)
    print(f"seams: tiles of 96 differ from the whole by {seam:.1e} of the range (99.9 percentile, fp32)", flush=True)
    pairs = simulation_speed()
    print(f"simulated pairs: {pairs / 1e6:.1f} million voxels a second of the high field on 2 threads", flush=True)
    machine = {"device": str(device), "threads": torch.get_num_threads(), "bf16": has_fast_bf16(device)}
    report = {"machine": machine, "torch": torch.__version__, "rows": rows, "seams": seam, "pair_voxels_per_s": pairs}
    write_json(folder / "benchmark.json", report)
    print(f"{json.dumps(machine)}; written to {folder / 'benchmark.json'}")


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


def _best(inferer: SuperResolutionInferer, image: torch.Tensor, network: torch.nn.Module, repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        inferer(image, network)
        if image.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _command(size: Sequence[int]) -> tuple[float, float]:
    """Seconds and peak GB of ``python -m bundle enhance`` on a made-up head of half the size per axis."""
    grid = target_grid(Grid(tuple(size), np.diag([0.7, 0.7, 0.7, 1.0])), [1.4] * 3)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape), indexing="ij")
    head = sum(a**2 for a in axes) < 0.8
    noise = np.random.default_rng(0).normal(0, 20, grid.shape)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "head_T1w.nii.gz"
        write_volume(source, (head * 500 + noise).astype(np.float32), grid.affine, (1, 1))
        command = [sys.executable, "-m", "bundle", "enhance", str(source), name]
        start = time.perf_counter()
        run = subprocess.run([sys.executable, "-c", _CHILD, *command], check=True, capture_output=True, text=True)
        return time.perf_counter() - start, int(run.stdout.split()[-1]) * 1024 / 1e9
