"""A SuperResolver whose U-Net runs in ONNX Runtime: for machines without PyTorch's kernels, and for TensorRT."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import optional_import
from torch import Tensor, nn

from .errors import InputError
from .export import INPUTS, SHA256, check_origin
from .networks.super_resolver import SuperResolver

_PROVIDERS = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider")}


class OnnxNetwork(nn.Module):
    """Takes the place of a SuperResolver in the inferer: what a tile costs runs in ONNX Runtime, the rest in PyTorch.

    Args:
        network: the network that the file was made from; its wavelet, context and scales are used.
        path: of :func:`bundle.export.write_onnx`.
        weights: that the file must have been made from.
        device: where the tensors are.
        providers: of ONNX Runtime, in order of preference; None for those of the device.

    Raises:
        InputError: no such file, made from other weights, or ONNX Runtime lacks it or the first provider.
    """

    def __init__(
        self,
        network: SuperResolver,
        path: str | os.PathLike,
        weights: str | os.PathLike,
        device: torch.device | str = "cpu",
        providers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        runtime, found = optional_import("onnxruntime")
        if not found:
            raise InputError("ONNX Runtime is not installed; pip install onnxruntime, or onnxruntime-gpu")
        self.network = network
        providers = list(providers or _PROVIDERS[torch.device(device).type])
        if providers[0] not in runtime.get_available_providers():
            raise InputError(f"ONNX Runtime has no {providers[0]}; it has {runtime.get_available_providers()}")
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such file; `make export` writes it")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # of many kinds, which the package does not export
            raise InputError(f"{path}: ONNX Runtime cannot load it ({str(error)[:100]})") from error
        check_origin(path, self.session.get_modelmeta().custom_metadata_map.get(SHA256, ""), weights)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def predict(self, *words: Tensor | None) -> Tensor:
        """As of the SuperResolver."""
        return self.predict_with_scale(*words)[0]

    def predict_with_scale(
        self,
        tile: Tensor,
        noisy: Tensor,
        t: Tensor,
        context: Tensor,
        condition: Tensor,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As of the SuperResolver; cells and fields, which only prior and guidance look at, are not needed."""
        rows = []
        for row in range(len(tile)):  # the file is for batches of one
            values = (x[row : row + 1].float().cpu().contiguous().numpy() for x in (tile, noisy, t, context, condition))
            rows.append(self.session.run(None, dict(zip(INPUTS, values, strict=True))))
        output, scale = (torch.cat([torch.from_numpy(r[k]) for r in rows]).to(tile.device) for k in range(2))
        return output, scale
