"""The network as files for other runtimes: TorchScript (``model.ts``) and ONNX (``model.onnx``)."""

import json
import os
import warnings
from pathlib import Path

import torch
from monai.data import load_net_with_metadata, save_net_with_metadata
from monai.utils import optional_import
from torch import Tensor, nn

from .errors import InputError
from .io import replacing, sha256
from .job import ROOT, load_model
from .networks.super_resolver import SuperResolver

SHA256 = "weights_sha256"  # in both files: the weights they were made from
INPUTS, OUTPUTS = ("tile", "noisy", "t", "context", "condition"), ("output", "log_scale")
_LARGEST = 128  # cells of 8 voxels along an axis of a tile


class TilePredictor(nn.Module):
    """What a tile costs: the U-Net with its modulation and the head of the uncertainty, tensors in and out.

    Args:
        network: without anatomy prior and guidance maps.

    Raises:
        InputError: with one.
    """

    def __init__(self, network: SuperResolver) -> None:
        super().__init__()
        if network.anatomy is not None or network.guided:
            reason = "a network with the anatomy prior or guidance maps has no ONNX form yet"
            raise InputError(f"{reason}; use its TorchScript (model.ts)")
        self.network = network

    def forward(
        self, tile: Tensor, noisy: Tensor, t: Tensor, context: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`bundle.networks.super_resolver.SuperResolver.predict_with_scale`."""
        return self.network.predict_with_scale(tile, noisy, t, context, condition, None, None)


def export(folder: Path, model: str | None = None) -> list[Path]:
    """Write ``model.ts`` and, of a network without prior, ``model.onnx``.

    Args:
        folder: to write to.
        model: name of another network, see :func:`bundle.job.load_model`.

    Raises:
        InputError: no such model or weights.
    """
    network, weights = load_model(model)
    stem = "model" if model is None else f"model_{model}"
    written = [write_script(network, weights, folder / f"{stem}.ts")]
    if network.anatomy is None and not network.guided:
        written.append(write_onnx(network, weights, folder / f"{stem}.onnx"))
    return written


def write_script(network: SuperResolver, weights: Path, path: Path) -> Path:
    """The scripted network with all its methods, the bundle's metadata and the hash of its weights in one file."""
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(network)
        save_net_with_metadata(
            scripted, str(temporary), meta_values=metadata, more_extra_files={SHA256: _hash(weights)}
        )
    return path


def load_script(path: str | os.PathLike, weights: str | os.PathLike, device: torch.device) -> torch.jit.ScriptModule:
    """The network of :func:`write_script`, in evaluation mode, channels last.

    Raises:
        InputError: no such file, not TorchScript, or made from other weights.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; `make export` writes it")
    try:
        network, _, extra = load_net_with_metadata(str(path), map_location=device, more_extra_files=(SHA256,))
    except RuntimeError as error:
        raise InputError(f"{path}: not a TorchScript file; `make export` writes it") from error
    check_origin(path, _text(extra.get(SHA256, "")), weights)
    return network.eval().to(memory_format=torch.channels_last_3d)


def write_onnx(network: SuperResolver, weights: Path, path: Path) -> Path:
    """A :class:`TilePredictor` for batches of one and tiles of any size, with the hash of its weights.

    Raises:
        InputError: the packages that write ONNX are not installed, or the network has a prior.
    """
    if not optional_import("onnxscript")[1]:
        raise InputError(f"{path}: writing ONNX needs more packages; pip install onnx onnxscript")
    d, h, w = (torch.export.Dim(name, min=2, max=_LARGEST) for name in "dhw")
    tile, latent = {2: 8 * d, 3: 8 * h, 4: 8 * w}, {2: 4 * d, 3: 4 * h, 4: 4 * w}
    context = network.context(torch.zeros(1, 1, 64, 64, 64))
    example = (torch.rand(1, 1, 64, 48, 56), torch.rand(1, 8, 32, 24, 28), torch.ones(1), context)
    program = torch.onnx.export(
        TilePredictor(network).eval(),
        (*example, network.default_condition[None]),
        dynamo=True,
        dynamic_shapes=(tile, latent, {}, {}, {}),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        verbose=False,
    )
    program.model.metadata_props[SHA256] = _hash(weights).decode()
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)
    return path


def check_origin(path: str | os.PathLike, found: str, weights: str | os.PathLike) -> None:
    """See that an exported file belongs to the weights beside it.

    Raises:
        InputError: it was made from others.
    """
    if found != _hash(weights).decode():
        raise InputError(f"{path}: made from other weights than {weights}; write it again with `make export`")


def _hash(weights: str | os.PathLike) -> bytes:
    return sha256(weights).encode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
