"""Seconds, memory and arithmetic of the network, whole and in tiles, and of each of its layers."""

import json
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..compute import free_memory, has_fast_bf16
from ..inferer import SuperResolutionInferer
from ..job import ROOT, load_model
from ..networks.super_resolver import SuperResolver
from .machine import PeakMemory, Seconds, best_time, clock

TILE = 128
Size = Sequence[int]


def build(name: str | None, device: torch.device) -> SuperResolver:
    """A network of the bundle, with random weights where none are shipped: they make no difference to its speed."""
    config = ROOT / "configs" / ("inference.json" if name is None else f"model_{name}.json")
    file = ROOT / "models" / ("model.pt" if name is None else f"model_{name}.pt")
    if config.is_file() and not file.is_file():
        definition = dict(json.loads(config.read_text())["network_def"])
        definition.pop("_target_")
        network = SuperResolver(**definition).eval()
    else:
        network = load_model(name)[0]
    return network.to(device, memory_format=torch.channels_last_3d)


def combinations(first: bool, large: bool, full: bool) -> Iterator[tuple[str | None, int, bool, bool]]:
    """Network, steps, tiles and fp32 of each row; large volumes in tiles only, steps and the
    teacher at the first size only, unless ``full``."""
    if large and not full:
        yield (None, 1, True, False)
        return
    yield from ((None, 1, False, False), (None, 1, True, False), (None, 1, False, True))
    if first or full:
        yield from ((None, 4, False, False), (None, 8, False, False), ("teacher", 1, False, False))
    if full:
        yield from ((None, 4, True, False), (None, 8, True, False), ("teacher", 1, True, False))


def measure(
    networks: dict[str | None, SuperResolver],
    size: Size,
    device: torch.device,
    peaks: dict[str, float],
    combination: tuple[str | None, int, bool, bool],
    repeats: int,
) -> dict | None:
    """One row, or None where the whole volume does not fit.

    Args:
        networks: by name.
        size: of the volume in voxels.
        device: of networks and volume.
        peaks: of :func:`bundle.benchmark.machine.peaks`.
        combination: of :func:`combinations`.
        repeats: calls, of which the fastest counts.
    """
    name, steps, tiled, plain = combination
    network, temperature = networks[name], 0.0 if steps == 1 else 1.0
    if plain:  # what PyTorch does without being told anything
        network = network.to(memory_format=torch.contiguous_format)
    inferer = SuperResolutionInferer(
        steps, temperature=temperature, max_memory=2**62, tile=TILE if tiled else None, amp=not plain
    )
    if not tiled and network.bytes_per_voxel * (2 if plain else 1) * math.prod(size) > 0.8 * free_memory(device):
        return None
    image = torch.rand((1, 1, *size), device=device)
    with PeakMemory(device) as memory:
        seconds = best_time(lambda: inferer(image, network), 0 if tiled or plain or steps > 1 else repeats, device)
    flop = flop_of(network, device) * math.prod(size) * (steps + (steps > 1))
    network.to(memory_format=torch.channels_last_3d)
    roof = peaks["bf16_GFLOP_s" if has_fast_bf16(device) and not plain else "fp32_GFLOP_s"]
    return {
        "output": "x".join(map(str, size)),
        "network": name or "student",
        "how": ("fp32 NCDHW" if plain else "tiles" if tiled else "whole"),
        "steps": steps,
        "model_s": round(seconds.wall, 3),
        "cpu_s": round(seconds.cpu, 3),
        "peak_GB": round(memory.bytes / 1e9, 2),
        "GFLOP": round(flop / 1e9, 1),
        "share_of_peak": round(flop / 1e9 / seconds.steady / roof, 3),
    }


@torch.no_grad()
def flop_of(network: SuperResolver, device: torch.device, side: int = 32) -> float:
    """Floating-point operations per voxel of the target, for one denoising step of one tile."""
    tile = torch.rand((1, 1, side, side, side), device=device)
    noisy, condition = network.latent.encode(tile), network.default_condition[None]
    context = network.context(tile)
    with FlopCounterMode(display=False) as counter:
        network.predict(tile, noisy, torch.ones(1, device=device), context, condition)
    return counter.get_total_flops() / side**3


@torch.no_grad()
def layers(network: SuperResolver, size: Size, device: torch.device, peaks: dict[str, float]) -> list[dict]:
    """Seconds of every convolution of one step, its share of the peak, and what holds it back."""
    spent: dict[str, list] = {}
    hooks = []
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            hooks += _clock(module, spent.setdefault(name, []), device)
    image = torch.rand((1, 1, *size), device=device)
    inferer = SuperResolutionInferer(max_memory=2**62)
    total = best_time(lambda: inferer(image, network), 2, device).steady
    for hook in hooks:
        hook.remove()
    rows = [_row(name, modules[name], calls, peaks) for name, calls in spent.items() if calls]
    rest = total - sum(row["s"] for row in rows)
    rows.sort(key=lambda row: -row["s"])
    return [
        *rows,
        {"layer": "everything else", "s": round(rest, 4), "why": "wavelet, and what works element by element: memory"},
    ]


def _clock(module: nn.Module, calls: list, device: torch.device) -> list:
    """Hooks that append (seconds, shape in, shape out, bytes of an element) of every call."""

    def before(module: nn.Module, args: tuple) -> None:
        module.began = clock(device)

    def after(module: nn.Module, args: tuple, result: torch.Tensor) -> None:
        spent = Seconds(*(b - a for a, b in zip(module.began, clock(device), strict=True))).steady
        calls.append((spent, args[0].shape, result.shape, result.element_size()))

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _row(name: str, module: nn.Module, calls: list, peaks: dict[str, float]) -> dict:
    """Of the fastest call."""
    seconds, given, made, width = min(calls, key=lambda call: call[0])
    taps = math.prod(module.kernel_size)
    outputs = math.prod(given) if isinstance(module, nn.ConvTranspose3d) else math.prod(made)
    other = module.out_channels if isinstance(module, nn.ConvTranspose3d) else module.in_channels
    flop, moved = 2 * outputs * other * taps, (math.prod(given) + math.prod(made)) * width
    roof = peaks["bf16_GFLOP_s" if width == 2 and "bf16_GFLOP_s" in peaks else "fp32_GFLOP_s"]
    share = flop / seconds / 1e9 / roof
    bound = min(1.0, flop / moved * peaks["copy_GB_s"] / roof)  # of the roofline
    if share >= 0.6:
        why = ""
    elif bound < 0.6:
        why = f"memory: its arithmetic allows {bound:.0%}"
    elif min(module.in_channels, module.out_channels) < 32:
        why = f"{min(module.in_channels, module.out_channels)} channels do not fill the vector units"
    else:
        why = "neither memory nor channels: the kernel for this shape is slow"
    shape = "x".join(map(str, module.kernel_size))
    return {
        "layer": name,
        "shape": f"{module.in_channels}->{module.out_channels}, {shape}, {'x'.join(map(str, made[2:]))}",
        "s": round(seconds, 4),
        "GFLOP": round(flop / 1e9, 2),
        "share_of_peak": round(share, 3),
        "why": why,
    }
