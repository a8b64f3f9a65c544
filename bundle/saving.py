"""The last transform of the main job: a result, its maps, its sidecar and its report, in files."""

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImaged

from . import __version__
from .bids import describe_derivatives
from .errors import InputError, one_line
from .inferer import RAN_OUT, TILE
from .io import RESULT, TISSUE, UNCERTAINTY, dicom_folder, join_name, sha256, write_json, write_volume
from .networks.anatomy import TISSUES
from .networks.super_resolver import MODALITIES
from .records import shown_options, source_uri
from .simulation.protocol import MODALITIES as PAIRED
from .writing import together

TRAINED_FACTORS = ((4.0, 4.0), (8.0, 2.0))  # largest on one axis, and on the other two
DEGRADATION = "Gaussian point-spread function, full width at half maximum"
DESCRIPTIONS = {
    "input": "Super-resolved volume",
    "7T": "Super-resolved 7 T-like volume, its contrast learnt from simulated pairs and not from 7 T scans",
}


@SaveImaged.register  # what answers over a network instead, such as MONAI Label, leaves transforms of that kind out
class SaveResultd(MapTransform):
    """Write the volume, the maps of uncertainty and tissue if they are there, the sidecar, and the report if asked for.

    All are written before the first gets its name; the volume comes last, so that it means "done".

    Args:
        keys: (C, D, H, W) MetaTensor: image, and spread.
        output_dir: folder.
        options: what the user chose, for the sidecar.
        weights: file the network was loaded from, for the sidecar.
    """

    def __init__(self, keys: KeysCollection, output_dir: str, options: Mapping[str, Any], weights: str) -> None:
        super().__init__(keys)
        self.folder, self.options, self.weights = Path(output_dir), dict(options), Path(weights)
        self._sha256: str | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            pred = item[key].cpu()
            affine, codes = pred.affine.numpy(), tuple(int(c) for c in item["source"].meta["form_codes"])
            target = self.result(item, RESULT)
            if target.parent != self.folder:
                target.parent.mkdir(parents=True, exist_ok=True)
            with together():
                sidecar = self._write(target, item, pred, affine, codes)
            for warning in sidecar["Warnings"]:
                print(f"warning: {one_line(Path(item['path']).name)}: {warning}")
            item["result"] = str(target)
        return item

    def _write(
        self,
        target: Path,
        item: Mapping[Hashable, Any],
        pred: MetaTensor,
        affine: np.ndarray,
        codes: tuple[int, int],
    ) -> dict[str, Any]:
        """Write all files of one result; the sidecar's content comes back."""
        if len(pred) > 1:
            write_volume(self.result(item, UNCERTAINTY), pred[1].numpy().astype("float32"), affine, codes)
        if "tissue" in item:
            write_volume(self.result(item, TISSUE), item["tissue"][0].cpu().numpy(), affine, codes)
        sidecar = self.sidecar(item)
        if item.get("bids_root"):
            describe_derivatives(self.folder, item["bids_root"])
        if self.options.get("dicom"):
            self._write_dicom(dicom_folder(target), pred[0].numpy(), affine, item, sidecar)
        write_json(target.with_name(target.name.replace(".nii.gz", ".json")), sidecar)
        if self.options.get("report"):
            from .report import report_path, write_report  # what it needs is loaded where it is wanted

            write_report(report_path(target), item, pred, sidecar)
        write_volume(target, pred[0].numpy().astype("float32"), affine, codes)
        return sidecar

    def result(self, item: Mapping[Hashable, Any], part: str) -> Path:
        """Where a result goes."""
        return self.folder / join_name(item["stem"], item["suffix"], part)

    def _write_dicom(
        self, folder: Path, volume: np.ndarray, affine: np.ndarray, item: Mapping[Hashable, Any], sidecar: dict
    ) -> None:
        if "dicom" not in item:
            raise InputError(f"{item['path']}: --dicom true needs a DICOM input, whose patient and study it keeps")
        from .dicom_out import write_series  # pydicom is loaded where it is needed only

        write_series(folder, volume, affine, json.loads(item["dicom"]), sidecar)

    def sidecar(self, item: Mapping[Hashable, Any]) -> dict[str, Any]:
        """Everything needed to know how a result came about."""
        self._sha256 = self._sha256 or sha256(self.weights)
        canonical = [round(2.0 ** float(v), 4) for v in item["condition"][3:]]
        factors = [canonical[axis] for axis in item["axes"][:, 0].int().tolist()]
        modality = MODALITIES[int(item["condition"][1] + 2 * item["condition"][2])]
        warnings, contrast = item["warnings"].splitlines(), "7T" if item["condition"][0] > 0 else "input"
        warnings += factor_warnings(factors)
        told = getattr(item[self.keys[0]], "meta", {})
        if told.get(RAN_OUT):
            warnings.append(f"memory ran out; done again in tiles of {int(told[TILE])} voxels")
        if self.options.get("contrast", contrast) != contrast:
            warnings.append(f"contrast 7T is there for {' and '.join(PAIRED)} only; the input's was kept")
        warnings += item.get("scan_notes", "").splitlines()
        return {
            "Description": DESCRIPTIONS[contrast] + "; research use only, not for diagnosis",
            "GeneratedBy": {
                "Name": "spcdd",
                "Version": __version__,
                "Weights": self.weights.name,
                "SHA256": self._sha256,
            },
            "Source": Path(item["path"]).name,
            **source_uri(item),
            "Options": shown_options(self.options),
            "Modality": modality,
            "Contrast": contrast,
            "SourceSpacing": [round(float(s), 4) for s in item["spacing"]],
            "Factors": factors,
            "Degradation": f"{DEGRADATION} of {item.get('width', 1.0):.4g} input voxels along blurred axes",
            **({"Tissue": dict(enumerate(TISSUES))} if "tissue" in item else {}),
            "Tile": int(told.get(TILE, 0)) or None,
            "Warnings": warnings,
            "RuntimeSeconds": round(time.time() - float(item["started"]), 2),
        }


def factor_warnings(factors: Sequence[float]) -> list[str]:
    """Warnings about factors that lie beyond the training range, :data:`TRAINED_FACTORS`."""
    _, second, largest = sorted(factors)
    if all(largest > most * 1.01 or second > others * 1.01 for most, others in TRAINED_FACTORS):
        text = " x ".join(f"{f:.3g}" for f in factors)
        ranges = " or ".join(f"{most:g} on one axis and {others:g} on the others" for most, others in TRAINED_FACTORS)
        return [f"factors {text} are beyond those of training (at most {ranges})"]
    return []
