"""The app's answers: what ``configs/inference.json`` describes, with the result sent instead of saved."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SqueezeDimd
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleConstants, BundleInferTask
from monailabel.utils.others.generic import name_to_device

import bundle
from bundle.compute import pick_device
from bundle.errors import InputError
from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.options import parse_options
from bundle.saving import SaveResultd
from bundle.tissue import AnatomyInferer, vote
from bundle.transforms import RestoreOrientationd

ROOT = Path(bundle.__file__).resolve().parent.parent
# what a client shows as choices, the default first; empty text stands for the bundle's own default
CHOICES = {"contrast": ["7T", "input"], "modality": ["auto", "T1w", "T2w", "other"]}
FIELDS = {"target_spacing": "", "max_memory": ""}


class _AnatomyConstants(BundleConstants):
    """Where the tissue task finds its weights."""

    def model_pytorch(self) -> str:
        return "model_anatomy.pt"


class BundleTask(BundleInferTask):
    """A task over ``configs/inference.json`` that reads the bundle's options from the request.

    One request at a time: options live in the one parsed config, and a head needs the memory.

    Args:
        conf: of the app.
        dtype: of the voxels that are sent.
        settings: more choices for the client.
        kwargs: of :class:`monailabel.tasks.infer.bundle.BundleInferTask`.
    """

    def __init__(self, conf: dict[str, str], dtype: type, settings: Mapping[str, Any], **kwargs: Any) -> None:
        self._lock, self.dtype = threading.Lock(), dtype
        super().__init__(
            str(ROOT),
            conf,
            post_filter=[SaveResultd],
            add_post_restore=False,  # it would bring an image back to the input's grid
            load_strict=True,
            config=dict(settings),
            **kwargs,
        )
        self._config.pop("model_filename", None)  # a list of all weights, also of other networks

    def __call__(self, request: dict, callbacks: dict | None = None) -> tuple[str | None, dict]:
        """Answer a request.

        Raises:
            HTTPException: status 400, for a volume or an option that is refused.
        """
        with self._lock:
            try:
                pick_device(name_to_device(request.get("device")))
                return super().__call__(request, callbacks)
            except InputError as error:
                raise HTTPException(status_code=400, detail=str(error)) from error

    def pre_transforms(self, data: dict | None = None) -> Sequence[Callable]:
        """The bundle's own, under the options of the request ``data``."""
        given = {name: data.get(name) for name in (*CHOICES, *FIELDS)}
        options = {k: v[0] if k in CHOICES and isinstance(v, list) else v for k, v in given.items()}
        parsed = parse_options(**{name: None if value == "" else value for name, value in options.items()})
        # never the text of a request: a config runs what begins with a dollar sign
        self.bundle_config.config.update({name: parsed[name] for name in options})
        self.bundle_config.parse()
        return super().pre_transforms(data)

    def _get_network(self, device: str, data: dict | None) -> torch.nn.Module:
        return super()._get_network(device, data).to(memory_format=torch.channels_last_3d)  # much faster on CPUs

    def writer(self, data: dict, extension: str | None = None, dtype: type | None = None) -> tuple[Any, Any]:
        """Write the answer with the task's voxel type; by default in the format of the input."""
        return super().writer(data, extension, dtype or self.dtype)


class SuperResolutionTask(BundleTask):
    """``superres``: a float32 image on the fine grid, in the input's orientation and world space.

    Args:
        conf: of the app.
        trained: folder of trainings on this server; ``weights: trained`` takes the last one's.
    """

    def __init__(self, conf: dict[str, str], trained: Path) -> None:
        settings = {**CHOICES, **FIELDS, "weights": ["shipped", "trained"]}
        super().__init__(conf, np.float32, settings, type=InferType.OTHERS)
        self.labels = {}
        self.trained, self.shipped = trained, list(self.path)

    def pre_transforms(self, data: dict | None = None) -> Sequence[Callable]:
        """The bundle's own; chooses the weights as well."""
        weights = data.get("weights", "shipped")
        self.path = self.shipped
        if weights == "trained":
            self.path = [str(path) for path in sorted(self.trained.glob("*/model.pt"))[-1:]]
            if not self.path:
                raise InputError(f"weights trained: none in {self.trained} yet; train on this server, or take shipped")
        elif weights not in ("shipped", ["shipped", "trained"]):
            raise InputError(f"weights {weights!r}: allowed is shipped or trained")
        return super().pre_transforms(data)

    def post_transforms(self, data: dict | None = None) -> Sequence[Callable]:
        """The bundle's own, without saving and without the channel."""
        return [*super().post_transforms(data), SqueezeDimd(keys="pred", dim=0)]


class TissueTask(BundleTask):
    """``tissue``: a uint8 label map on the grid of the input, index into ``TISSUES``; viewers show it as segmentation.

    Args:
        conf: of the app.
    """

    def __init__(self, conf: dict[str, str]) -> None:
        settings = {**CHOICES, **FIELDS}
        super().__init__(conf, np.uint8, settings, type=InferType.SEGMENTATION, const=_AnatomyConstants())
        self.network = AnatomyExtractor()
        self.labels = {name: index for index, name in enumerate(TISSUES) if index}
        self.description = "Tissue of every voxel; good for large structures only so far"

    def pre_transforms(self, data: dict | None = None) -> Sequence[Callable]:
        """The bundle's own; the grid of the file is kept after loading."""
        load, *rest = super().pre_transforms(data)
        return [load, KeepGridd(keys="image"), *rest]

    def inferer(self, data: dict | None = None) -> Callable:
        """Most probable tissue, tile by tile."""
        return partial(AnatomyInferer(), condition=torch.as_tensor(data["condition"])[None])

    def post_transforms(self, data: dict | None = None) -> Sequence[Callable]:
        """Back to the file's axes, and to its voxels."""
        return [RestoreOrientationd(keys="pred"), VoteOnGridd(keys="pred"), SqueezeDimd(keys="pred", dim=0)]


class KeepGridd(MapTransform):
    """Note shape and affine of the file under ``file_shape`` and ``file_affine``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            item["file_shape"], item["file_affine"] = tuple(item[key].shape[1:]), item[key].affine.clone()
        return item


class VoteOnGridd(MapTransform):
    """Bring a label map (1, D, H, W) to the grid that :class:`KeepGridd` noted (see :func:`bundle.tissue.vote`)."""

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            labels = vote(item[key].as_tensor(), item["file_shape"])
            item[key] = MetaTensor(labels, affine=item["file_affine"])
        return item
