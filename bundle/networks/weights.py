"""Weights in files: reading them, starting from them, and growing a network out of a smaller one's."""

import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..writing import replacing
from .super_resolver import SIZES, SuperResolver

_MODULES = {"prior": "anatomy", "modulation": "modulator", "uncertainty": "scale_head"}  # of a part of the network


LISTING = "sha256.json"  # beside files of weights: what they must be


def read_weights(path: str | os.PathLike, check: bool = True) -> dict[str, Tensor]:
    """Plain tensors by name; nothing else is ever unpickled.

    A file that is named in a ``sha256.json`` beside it must be the one that is meant there; any other is taken. The
    extractor of a large network may lie in a file of its own beside it, ``NAME.anatomy.pt`` of ``NAME.pt``.

    Args:
        path: file.
        check: False takes a listed file whatever it is.

    Raises:
        InputError: no such file, not weights, or not those that the listing means.
    """
    try:
        content = Path(path).read_bytes()
        if check:
            check_listed(path, hashlib.sha256(content).hexdigest())
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        message = "no such file; the weights belong there, trained or as they come with the repository"
        raise InputError(f"{path}: {message}") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: these are not weights; fetch the file again") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: these are not weights; fetch the file again")
    part = Path(path).with_suffix(f".anatomy{Path(path).suffix}")
    if part.is_file():
        state = {f"anatomy.{name}": v for name, v in read_weights(part, check).items()} | state
    return state


def check_listed(path: str | os.PathLike, digest: str) -> None:
    """See that a file has the SHA-256 that the ``sha256.json`` beside it says, if that names it.

    Raises:
        InputError: it has another.
    """
    expected = _listed(path).get(Path(path).name, digest)
    if digest != expected:
        todo = "fetch the file again, or take it as it is with --check_weights false"
        reason = f"not the weights that were shipped (SHA-256 {digest[:12]}..., expected {expected[:12]}...)"
        raise InputError(f"{path}: {reason}; {todo}")


def _listed(path: str | os.PathLike) -> dict[str, str]:
    listing = Path(path).parent / LISTING
    return json.loads(listing.read_text()) if listing.is_file() else {}


def start_from(
    network: nn.Module,
    weights: str | os.PathLike | None,
    anatomy: str | os.PathLike | None = None,
    latent: str | os.PathLike | None = None,
) -> nn.Module:
    """The network with the weights of a file (half or single precision), or as it is when that is None.

    Args:
        network: to be filled.
        weights: of this network or of a smaller one (fewer channels, blocks or parts): see :func:`grow`.
        anatomy: weights of its anatomy extractor, loaded after ``weights`` where the network has one.
        latent: weights of its learned latent, likewise.

    Raises:
        InputError: no such file, or not the weights of this network or of a smaller one.
    """
    parts = [
        (network, weights),
        (getattr(network, "anatomy", None), anatomy),
        (getattr(network, "latent", None), latent),
    ]
    for part, path in parts:
        if part is None or path is None:
            continue
        try:
            grow(part, read_weights(path))
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(f"{path}: these are not the weights of this network, nor of a smaller one") from error
    return network


@torch.no_grad()
def grow(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Take up the weights of a smaller network so that this one begins by computing the same.

    Old weights go where the old channels are. New channels keep their fresh weights but say nothing to the old ones,
    and parts the file does not know stay fresh: residual blocks, modulation and prior begin as nothing (Net2Net, Chen
    et al., ICLR 2016, without its copies of channels).

    Args:
        network: as large as that of ``state`` or larger in every tensor.
        state: plain tensors by name; every name must be one of the network's.
    """
    own = network.state_dict()
    transposed = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.ConvTranspose3d)}
    for name, old in state.items():
        new = own[name]
        if new.ndim != old.ndim or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
            raise ValueError(f"{name}: {tuple(old.shape)} does not fit into {tuple(new.shape)}")
        if new.ndim > 1 and new.shape != old.shape:
            out_axis = 1 if name in transposed else 0
            new.narrow(out_axis, 0, old.shape[out_axis]).zero_()
        new[tuple(slice(n) for n in old.shape)] = old.to(new)
    return network


def load(network: nn.Module, path: str | os.PathLike, check: bool = True) -> nn.Module:
    """The network with exactly the weights of a file, in evaluation mode.

    Args:
        network: to be filled.
        path: file.
        check: see :func:`read_weights`.

    Raises:
        InputError: no such file, or not the weights of this network.
    """
    state = read_weights(path, check)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: these are not the weights of this network") from error
    return network.eval()


def write_weights(path: str | os.PathLike, state: dict[str, Tensor]) -> None:
    """Replace a file of weights, or leave it as it was; a listing beside it that names it is brought up to date."""
    with replacing(Path(path)) as temporary:
        torch.save(state, temporary)
    listed = _listed(path)
    if Path(path).name in listed:
        listed[Path(path).name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        with replacing(Path(path).parent / LISTING) as temporary:
            temporary.write_text(json.dumps(listed, indent=2) + "\n")


def load_super_resolver(path: str | os.PathLike) -> SuperResolver:
    """A SuperResolver with the weights of a file, of the size and with the parts that these are of.

    What it predicts is not in the weights: ``v`` is assumed.

    Raises:
        InputError: no such file, or not the weights of such a network.
    """
    state = read_weights(path)
    modules = {name.split(".")[0] for name in state}
    parts = {part: module in modules for part, module in _MODULES.items()}
    parts["experts"] = any(name.startswith("denoiser.experts") for name in state)
    parts["latent"] = "autoencoder" if "latent" in modules else "haar"
    sizes = {(widths[0], widths[-1]): size for size, (widths, _) in SIZES.items()}
    ends = tuple(len(state.get(f"denoiser.{name}.bias", ())) for name in ("entry", "down.1"))
    size = sizes.get(ends, "student")
    network = SuperResolver(size, **parts)
    entry = state.get("denoiser.entry.weight")
    if entry is not None and entry.ndim == 5 and entry.shape[1] > network.denoiser.entry.in_channels:
        network = SuperResolver(size, guided=True, **parts)  # guidance maps are all that may join it
    return load(network, path)
