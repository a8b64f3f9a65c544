"""The app's training: ``configs/train.json`` on the images of the server."""

import json
import time
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import name_to_device

from bundle.compute import pick_device
from bundle.errors import InputError
from bundle.integrations.monai_label.infer import ROOT
from bundle.io import split_name
from bundle.modality import modality_by_name
from bundle.options import read_boolean, read_number

_COUNT = read_number(1, 10**6, whole=True)
# keys of configs/train.json that a client may set, and how they are read
SIZES = {
    "max_epochs": _COUNT,
    "epoch_length": _COUNT,
    "batch_size": _COUNT,
    "patch_size": _COUNT,
    "validation_size": _COUNT,
    "val_interval": _COUNT,
    "num_workers": read_number(0, 64, whole=True),
    "learning_rate": read_number(0, 1),
}
TEXTS = ("tracking", "tracking_uri", "tracking_experiment_name", "tracking_run_name")


class SuperResolutionTrainTask(BundleTrainTask):
    """Goes on from the shipped weights with every image of the server as a sharp volume; labels are not needed.

    The image is degraded on the fly, so train on the best scans there are. Every training has a folder of its own, with
    the list of images, TensorBoard files and ``model.pt``.

    Args:
        conf: of the app.
        folder: where the folders of trainings are made.
    """

    def __init__(self, conf: dict[str, str], folder: Path) -> None:
        super().__init__(str(ROOT), conf)
        self.folder, self._request, self._output = folder, {}, folder

    def config(self) -> dict[str, Any]:
        """What a client can choose."""
        stock, own = super().config(), self.bundle_config.config
        kept = ("device", "pretrained", "max_epochs", "val_split", "tracking", "tracking_uri")
        return {**{name: own[name] for name in SIZES}, **{name: stock[name] for name in kept}}

    def __call__(self, request: dict, datastore: Datastore) -> dict:
        """Train; ``request`` holds what :meth:`config` offers.

        Raises:
            HTTPException: status 400, for a value that is refused, or without images.
        """
        self._output = self.folder / time.strftime("%Y%m%d-%H%M%S")
        try:
            self._request = read_request(request)
            return super().__call__(self._request, datastore)
        except InputError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error

    def _fetch_datalist(self, request: dict, datastore: Datastore) -> list[dict]:
        paths = [str(datastore.get_image_uri(name)) for name in sorted(datastore.list_images())]
        paths = [path for path in paths if split_name(Path(path))[1]]
        if not paths:
            raise InputError("no volume on this server to train on; add NIfTI, NRRD or MHA files to its studies")
        return [{"image": path, "modality": modality_by_name(Path(path)) or "other"} for path in paths]

    def _partition_datalist(
        self, datalist: list[dict], request: dict, shuffle: bool = False
    ) -> tuple[list[dict], list[dict]]:
        """Training and validation; never empty: a single image is both, and a negative or zero split keeps one."""
        count = min(len(datalist) - 1, max(1, round(request["val_split"] * len(datalist))))
        return (datalist[:-count], datalist[-count:]) if count else (datalist, datalist)

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list) -> None:
        """Nothing: the config begins from ``initial_weights``, and finds its handlers by their place in the list."""

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """MONAI Label's overrides as keys of ``configs/train.json``, with the images as a list on disk."""
        sections = {
            "training": overrides.pop(self.const.key_train_dataset_data()),
            "validation": overrides.pop(self.const.key_validate_dataset_data()),
        }
        self._output.mkdir(parents=True)
        (self._output / "datalist.json").write_text(json.dumps(sections, indent=2))
        overrides.pop(self.const.key_train_handlers())
        overrides.pop(self.const.key_train_trainer_max_epochs())
        overrides |= {
            "datalist": str(self._output / "datalist.json"),
            "dataset_dir": "/",
            "output_dir": str(self._output),
            "initial_weights": str(ROOT / "models" / "model.pt") if self._request["pretrained"] else None,
            **{name: self._request[name] for name in SIZES if name in self._request},
        }
        return overrides


def read_request(request: dict[str, Any]) -> dict[str, Any]:
    """What of a request is known, read strictly: it ends in a config, which runs what begins with a dollar sign.

    Raises:
        InputError: a value that is not allowed.
    """
    known = {name: read(name, request[name]) for name, read in SIZES.items() if name in request}
    for name in TEXTS:
        text = request.get(name)
        text = text[0] if isinstance(text, list) and text else text
        if text and (not isinstance(text, str) or text[0] in "$@%"):
            raise InputError(f"{name} {text!r}: allowed is plain text that begins with none of $, @ and %")
        known |= {name: text} if text else {}
    device = name_to_device(request.get("device"))
    pick_device(device)
    pretrained = read_boolean("pretrained", request.get("pretrained", True))
    split = read_number(-1, 0.99)("val_split", request.get("val_split", 0.2))
    return {
        "model": "superres",
        "device": device,
        "pretrained": pretrained,
        "val_split": split,
        **known,
        "multi_gpu": False,
    }
