"""What each expert of a mixture does to a volume: gate maps, difference maps, and a picture of them over anatomy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from torch import Tensor
from torch.nn import functional as F

from .compute import autocast
from .diffusion import start_time
from .errors import InputError
from .inferer import SuperResolutionInferer
from .intensity import percentiles
from .io import result_name, sha256, write_json, write_volume
from .metrics import head_mask
from .networks.experts import EXPERTS, MixtureDenoiser
from .networks.super_resolver import SuperResolver
from .transforms import LoadVolumed, RestoreOrientationd, ToTargetGridd


class Explanation(NamedTuple):
    """What a mixture did to a volume, at temperature 0.

    ``shares`` (B, K, D, H, W) are the gate's, ``alone`` what each expert by itself would change in the input,
    ``differences`` the shares times that: their sum is what the mixture changes.
    """

    shares: Tensor
    alone: Tensor

    @property
    def differences(self) -> Tensor:
        """(B, K, D, H, W)."""
        return self.shares * self.alone


@torch.no_grad()
def explain_tensor(image: Tensor, network: SuperResolver, condition: Tensor, **inferer: object) -> Explanation:
    """Shares and changes of every expert, all of them run everywhere, tile by tile where memory asks for it.

    Args:
        image: (1, 1, D, H, W), normalised, on the target grid.
        network: whose denoiser is a mixture.
        condition: (1, 6).
        inferer: arguments of :class:`bundle.inferer.SuperResolutionInferer`.

    Raises:
        InputError: the network has no experts.
    """
    if not isinstance(network.denoiser, MixtureDenoiser):
        raise InputError("this network has no experts; explain one that has, such as --model moe")
    engine = SuperResolutionInferer(**inferer)
    draw = engine.prepare(image, network, condition, crop=False)
    z, count = draw.volume.new_zeros(draw.noise_shape), len(EXPERTS)

    def predict(tile: Tensor, z: Tensor, t: Tensor, cells: Tensor, fields: Tensor | None) -> Tensor:
        with autocast(z.device, engine.amp):
            prior, maps = network.guidance(tile, cells, draw.context, draw.condition, fields)
            latent = network.latent.encode(tile)
            shares, each = network.denoiser.parts(z, latent, t, draw.condition, prior, maps)
        clean = [network.clean(z, each[:, k].float(), t) for k in range(count)]
        return torch.cat([shares.float(), *clean], dim=1)

    t = torch.full((1,), start_time(network.prediction), device=z.device)
    found = draw.blend(predict, z, t)
    nothing, size = torch.zeros_like(draw.volume), tuple(slice(n) for n in image.shape[2:])
    parts = found[:, count:].chunk(count, dim=1)
    alone = torch.cat([network.decode_residual(nothing, part, draw.condition) for part in parts], dim=1)
    # every latent voxel is two voxels wide, and so is what its share weighs: nothing in between
    shares = F.interpolate(found[:, :count], scale_factor=2, mode="nearest")
    return Explanation(shares[(..., *size)], alone[(..., *size)])


def correlations(maps: Tensor, mask: Tensor) -> list[list[float]]:
    """Correlation of every pair of maps (K, D, H, W) over a mask (D, H, W)."""
    return [[round(float(v), 3) for v in row] for row in torch.corrcoef(maps[:, mask])]


def explain(
    path: str,
    folder: Path,
    network: SuperResolver,
    weights: Path,
    spacing: Sequence[float] | None = None,
    contrast: str = "7T",
    modality: str = "auto",
) -> dict[str, Any]:
    """Write gate maps and difference maps as NIfTI, ``<stem>_desc-experts.png`` and ``.json``; return its content.

    Differences are in the input's units. All maps are on the target grid, in the axes of the file.
    """
    item = LoadVolumed("image")({"image": path})
    item["image"] = Orientation(axcodes="RAS", labels=None)(item["image"])
    item = ToTargetGridd("image", spacing, contrast, modality)(item)
    image = item["image"].as_tensor()[None]
    found = explain_tensor(image, network, item["condition"][None])
    mask = head_mask(image[0, 0])
    report = {
        "Description": "Experts of a mixture: shares of the gate, and what each changes; research use only",
        "Source": Path(path).name,
        "Weights": weights.name,
        "SHA256": sha256(weights),
        "MeanShare": dict(zip(EXPERTS, found.shares[0][:, mask].mean(1).tolist(), strict=True)),
        "CorrelationOfDifferences": correlations(found.differences[0], mask),
        "CorrelationOfExpertsAlone": correlations(found.alone[0], mask),
    }
    draw(image[0, 0], found, folder / result_name(Path(path), "desc-experts").replace(".nii.gz", ".png"))
    _write(item, found, Path(path), folder)
    write_json(folder / result_name(Path(path), "desc-experts").replace(".nii.gz", ".json"), report)
    return report


def _write(item: Mapping[str, Any], found: Explanation, path: Path, folder: Path) -> None:
    scale = float(item["intensity"][1])
    maps = torch.cat([found.shares[0], scale * found.differences[0]]).cpu()
    maps = MetaTensor(maps, affine=item["image"].affine)
    restored = RestoreOrientationd("maps")({"maps": maps, "axes": item["axes"]})["maps"]
    codes = tuple(int(c) for c in item["source"].meta["form_codes"])
    names = [f"desc-{kind}{_camel(name)}" for kind in ("gate", "difference") for name in EXPERTS]
    for name, volume in zip(names, restored, strict=True):
        array = volume.numpy().astype("float32")
        write_volume(folder / result_name(path, name), array, restored.affine.numpy(), codes)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split())


def draw(image: Tensor, found: Explanation, path: Path) -> None:
    """Picture of three slices: the input, the result, and gate and difference of every expert over the input.

    Args:
        image: (D, H, W), canonical axes, normalised.
        found: of the same size.
        path: of a PNG.
    """
    plt = _pyplot()
    inside = head_mask(image).nonzero()
    low, high = inside.amin(0), inside.amax(0)
    box = tuple(slice(max(0, int(a) - 4), int(b) + 5) for a, b in zip(low, high, strict=True))
    middle = ((high - low) // 2 + 4).tolist()
    image, shares, changes = image[box], found.shares[0][:, *box], found.differences[0][:, *box]
    limit, top = percentiles(changes.abs(), (99.8,))[0], percentiles(image, (99.8,))[0]
    layers = [("input, interpolated", image, None), ("result", image + changes.sum(0), None)]
    layers += [(f"gate: {name}", image, share) for name, share in zip(EXPERTS, shares, strict=True)]
    layers += [(f"change: {name}", image, change) for name, change in zip(EXPERTS, changes, strict=True)]
    cuts = [lambda v: v[:, :, middle[2]].T, lambda v: v[:, middle[1], :].T, lambda v: v[middle[0], :, :].T]
    ratios = [cut(image).shape[0] / cut(image).shape[1] for cut in cuts]
    figure, axes = plt.subplots(3, 8, figsize=(22, 2.75 * sum(ratios) + 0.4), facecolor="black", height_ratios=ratios)
    for axis, (title, *_) in zip(axes[0], layers, strict=True):
        axis.set_title(title, color="white", fontsize=11)
    for row, cut in zip(axes, cuts, strict=True):
        for axis, (title, under, over) in zip(row, layers, strict=True):
            axis.imshow(np.asarray(cut(under)), origin="lower", cmap="gray", vmin=0, vmax=top)
            if over is not None:
                _overlay(axis, np.asarray(cut(over)), None if title.startswith("gate") else limit)
            axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.035, 0.995, 0.97, 0.02, 0.02)
    text = f"gate: share of the expert, dark 0 to bright 1; change: what it adds, blue -{limit:.2f} to red +{limit:.2f}"
    figure.text(0.5, 0.012, f"{text} of the normalised intensity", color="white", ha="center", fontsize=11)
    figure.savefig(path, dpi=70, facecolor="black")
    plt.close(figure)


def _pyplot() -> Any:  # noqa: ANN401
    """Matplotlib without a screen.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("the picture is drawn by the package matplotlib; run: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _overlay(axis: Any, plane: np.ndarray, limit: float | None) -> None:  # noqa: ANN401
    """Shares (no limit) as a wash of colour, changes as blue and red that are clear where there is nothing."""
    if limit is None:
        axis.imshow(plane, origin="lower", alpha=0.6, cmap="inferno", vmin=0, vmax=1)
        return
    alpha = np.clip(np.abs(plane) / (0.5 * limit), 0, 0.9)
    axis.imshow(plane, origin="lower", alpha=alpha, cmap="RdBu_r", vmin=-limit, vmax=limit)
