"""Corrections of a scan's shading and gradient distortion in the main job: applied, or given to a guided network."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .bias import BiasEstimator, remove_bias
from .errors import InputError
from .geometry import Grid, resample
from .gradients import GradientField, read_coefficients
from .guidance_maps import guidance_maps
from .io import split_name
from .unwarping import VoxelField, apply_field, unwarping_field

CORRECTED, RAW = ("DIS2D", "DIS3D"), "ND"  # what ImageType says of distortion (Siemens)
_SCANNER = 1  # NIfTI's code of coordinates of the scanner


def acquisition_of(volume: MetaTensor, path: str | Path) -> dict[str, Any]:
    """What is known of how a volume was acquired, with the keywords of DICOM: from its meta data, or from the JSON
    that BIDS and dcm2niix put beside a NIfTI; empty where there is nothing."""
    known = volume.meta.get("acquisition") if isinstance(volume, MetaTensor) else None
    known = dict(known) if isinstance(known, Mapping) else {}
    path = Path(path)
    sidecar = path.with_name(split_name(path)[0] + ".json")
    try:
        content = json.loads(sidecar.read_text())
    except (OSError, ValueError):
        return known
    return {**content, **known} if isinstance(content, dict) else known


def image_type(acquisition: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of ImageType, in capitals; none where it is unknown."""
    value = acquisition.get("ImageType") or ()
    parts = value.replace("/", "\\").split("\\") if isinstance(value, str) else value
    return tuple(str(part).strip().upper() for part in parts)


def judge_distortion(acquisition: Mapping[str, Any], force: bool = False) -> tuple[bool, list[str]]:
    """Whether to undo the distortion, never twice, and what to tell the user.

    Args:
        acquisition: of :func:`acquisition_of`.
        force: undo it whatever ImageType says.

    Raises:
        InputError: a patient position other than head first, on the back.
    """
    position = str(acquisition.get("PatientPosition") or "HFS").upper()
    if position != "HFS":
        raise InputError(
            f"PatientPosition {position}: gradient coefficients are used for HFS (head first, on the back) only; leave "
            "out --gradient_coefficients"
        )
    kinds = image_type(acquisition)
    done = next((kind for kind in CORRECTED if kind in kinds), None)
    if done and not force:
        plane = " in its slices, though not across them" if done == "DIS2D" else ""
        return False, [f"ImageType {done}: the scanner has unwarped this volume{plane}; not done again"]
    if done:
        return True, [f"ImageType {done}: the scanner has unwarped this volume; done again, as --force_unwarp asks"]
    if RAW not in kinds and not force:
        return True, ["ImageType does not say whether the scanner has unwarped this volume; taken as not unwarped"]
    return True, []


class CorrectScand(MapTransform):
    """Divide a volume by its bias field, and unwarp it, where that is wanted and not done before.

    Reads ``path``; adds ``unwarp``, 0 or 1, whether the distortion is to be undone, and ``scan_notes``, lines for the
    user. The isocentre is the origin of the affine, in the coordinates of the scanner.

    Args:
        keys: (1, D, H, W) MetaTensor in scanner units, before it is normalised.
        coefficients: file of the coil (``.grad``), or None.
        force: see :func:`judge_distortion`.
        bias: whether to divide by the field that N4 finds.
        guide: leave the distortion to a guided network, see :class:`GuidanceMapsd`.
        estimator: of the bias field; default :class:`bundle.bias.BiasEstimator`.

    Raises:
        InputError: coefficients that cannot be read, or a position they are not for.
    """

    def __init__(
        self,
        keys: KeysCollection,
        coefficients: str | None = None,
        force: bool = False,
        bias: bool = False,
        guide: bool = False,
        estimator: BiasEstimator | None = None,
    ) -> None:
        super().__init__(keys)
        self.coil = _Coil(coefficients)
        self.force, self.bias, self.guide, self.estimator = force, bias, guide, estimator or BiasEstimator()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            volume, notes, unwarp = item[key], [], False
            grid, plain = Grid(tuple(volume.shape[1:]), volume.affine.numpy()), volume.as_tensor()
            if self.bias and torch.isfinite(plain).all():  # what is not finite is refused later
                plain = remove_bias(plain, self.estimator(plain[0], grid))
            if self.coil:
                unwarp, notes = self._judge(item, volume)
            if unwarp:
                field = self.coil.on(grid)
                notes += _outside(field, self.coil)
                plain = plain if self.guide else apply_field(plain, field)
            item[key] = MetaTensor(plain, meta=volume.meta)
            item["unwarp"], item["scan_notes"] = torch.tensor(int(unwarp)), "\n".join(notes)
        return item

    def _judge(self, item: Mapping[Hashable, Any], volume: MetaTensor) -> tuple[bool, list[str]]:
        path = item.get("path", "volume")
        try:
            unwarp, notes = judge_distortion(acquisition_of(volume, path), self.force)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        codes = [int(c) for c in volume.meta.get("form_codes", (_SCANNER, _SCANNER))]
        code = codes[1] or codes[0]
        if unwarp and code != _SCANNER:
            notes.append(
                f"the affine has code {code}, not that of scanner coordinates ({_SCANNER}); its origin is taken for "
                "the isocentre all the same"
            )
        return unwarp, notes


class GuidanceMapsd(MapTransform):
    """Write the guidance maps of a volume on its target grid, ``fields`` (3, D, H, W), for a guided network.

    The bias field is estimated by N4, the rest computed from coefficients. ``source``, which a result of contrast
    ``input`` is compared with, is corrected, since the result is.

    Args:
        keys: (1, D, H, W) MetaTensor, on the target grid and normalised, with ``source`` and ``unwarp`` beside it.
        coefficients: file of the coil, or None.
        estimator: of the bias field; default :class:`bundle.bias.BiasEstimator`.
    """

    def __init__(
        self, keys: KeysCollection, coefficients: str | None = None, estimator: BiasEstimator | None = None
    ) -> None:
        super().__init__(keys)
        self.coil, self.estimator = _Coil(coefficients), estimator or BiasEstimator()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            image, source = item[key], item["source"]
            low, high = (Grid(tuple(v.shape[1:]), v.affine.numpy()) for v in (source, image))
            plain = source.as_tensor()
            log_bias, field = self.estimator(plain[0], low), None
            plain = remove_bias(plain, log_bias)
            if self.coil and int(item["unwarp"]):
                field, plain = self.coil.on(high), apply_field(plain, self.coil.on(low))
            item["source"] = MetaTensor(plain, meta=source.meta)
            maps = guidance_maps(image.as_tensor(), resample(log_bias, high.shape)[None], field)
            item["fields"] = MetaTensor(maps, affine=image.affine)
        return item


class _Coil:
    """A file of coefficients, read when it is first used; false where there is none."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.field: GradientField | None = None

    def __bool__(self) -> bool:
        return self.path is not None

    def on(self, grid: Grid) -> VoxelField:
        """What removes the distortion on a grid."""
        self.field = self.field or GradientField(read_coefficients(self.path))
        return unwarping_field(self.field, grid)


def _outside(field: VoxelField, coil: _Coil) -> list[str]:
    if field.outside < 0.02:
        return []
    radius = coil.field.valid_radius
    return [
        f"{100 * field.outside:.0f} % of the volume lie more than {radius:.0f} mm from the isocentre, beyond which the "
        "coefficients say nothing; it was moved as at that distance"
    ]
