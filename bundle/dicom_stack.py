"""Whether DICOM images are one whole, evenly spaced stack, and where it lies."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from .errors import InputError
from .geometry import MIN_VOXELS

MISSING = 1.5  # gaps above so many usual ones have an image missing
UNEVEN = (0.01, 0.1)  # deviation of a gap from the usual one, as a share of it: warned about, refused
DRIFT = 0.25  # pixels that images may be shifted against each other within their plane


class Slice(NamedTuple):
    """Geometry and timing of one image; LPS millimetres, milliseconds; ``file`` and ``instance`` say which it is."""

    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (2, 3) direction of a row, direction of a column
    spacing: np.ndarray  # (2,) between columns, between rows
    shape: tuple[int, int]  # columns, rows
    file: int
    instance: int
    echo: float | None
    repetition: float | None
    inversion: float | None
    scale: tuple[float, float]


def frames_of(header: Dataset, file: int) -> list[Slice]:
    """One slice per frame of a header, classic or multi-frame.

    Raises:
        AttributeError, KeyError, IndexError, TypeError, ValueError: what is needed is not there.
    """
    shape = (int(header.Columns), int(header.Rows))
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = header.get("PerFrameFunctionalGroupsSequence")
    slices = []
    for i, frame in enumerate(frames or [Dataset()]):
        groups = (frame, shared, header)
        position, orientation, spacing = (
            np.array(_find(groups, sequence, key), dtype=np.float64)
            for sequence, key in (
                ("PlanePositionSequence", "ImagePositionPatient"),
                ("PlaneOrientationSequence", "ImageOrientationPatient"),
                ("PixelMeasuresSequence", "PixelSpacing"),
            )
        )
        timing = "MRTimingAndRelatedParametersSequence"
        slices.append(
            Slice(
                position=position.reshape(3),
                orientation=orientation.reshape(2, 3),
                spacing=spacing.reshape(2)[::-1],
                shape=shape,
                file=file,
                instance=i + 1 if frames else int(header.get("InstanceNumber") or 0),
                echo=_number(groups, "MREchoSequence", "EffectiveEchoTime", "EchoTime"),
                repetition=_number(groups, timing, "RepetitionTime", "RepetitionTime"),
                inversion=_number(groups, "MRModifierSequence", "InversionTimes", "InversionTime"),
                scale=tuple(
                    _number(groups, "PixelValueTransformationSequence", key, "-") or 0.0
                    for key in ("RescaleSlope", "RescaleIntercept")
                ),
            )
        )
    return slices


def _find(groups: Sequence[Dataset], sequence: str, key: str) -> Any:
    """Value of a key in the functional groups of a frame or of all frames, or at the top of a classic header."""
    for group in groups:
        for where in (group.get(sequence) or [None])[0], group:
            if where is not None and where.get(key) is not None:
                return where.get(key)
    return None


def _number(groups: Sequence[Dataset], sequence: str, key: str, classic: str) -> float | None:
    value = _find(groups, sequence, key)
    value = _find(groups, sequence, classic) if value is None else value
    value = value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value
    return None if value in (None, "") else float(value)


def check_stack(slices: Sequence[Slice], name: str) -> tuple[list[int], tuple[str, ...]]:
    """Order of the slices along their normal, and warnings.

    Raises:
        InputError: they are not one whole stack; says what is missing.
    """
    _check_alike(slices, name)
    if len(slices) < MIN_VOXELS:
        raise InputError(
            f"{name}: a series of {len(slices)} images; at least {MIN_VOXELS} are needed "
            "(a localiser, or images are missing)"
        )
    depth = np.array([s.position for s in slices]) @ np.cross(*slices[0].orientation)
    order = [int(i) for i in np.argsort(depth, kind="stable")]
    gaps = np.diff(depth[order])
    usual = float(np.median(gaps))
    repeated = int((gaps < 1e-3).sum())
    if repeated or usual < 1e-3:
        places = len(slices) - repeated
        raise InputError(
            f"{name}: {len(slices)} images at {places} positions (a time series, or several volumes in one series); "
            "one image per position is needed"
        )
    _check_missing([slices[i] for i in order], gaps, usual, name)
    uneven = float(np.abs(gaps / usual - 1).max())
    spread = f"gaps between images of {gaps.min():.4g} to {gaps.max():.4g} mm"
    if uneven > UNEVEN[1]:
        raise InputError(f"{name}: uneven {spread}; resample the series onto an even grid first")
    _check_drift([slices[i] for i in order], name)
    return order, ((f"slightly uneven {spread}; their mean was used",) if uneven > UNEVEN[0] else ())


def _check_alike(slices: Sequence[Slice], name: str) -> None:
    first = slices[0]
    if not all(np.isfinite([*s.position, *s.orientation.ravel(), *s.spacing]).all() for s in slices):
        raise InputError(f"{name}: images without position, orientation or pixel spacing; they are no volume")
    turned = [s.orientation for s in slices]
    kinds: list[np.ndarray] = []
    for orientation in turned:
        if not any(np.abs(orientation - k).max() < 1e-3 for k in kinds):
            kinds.append(orientation)
    if len(kinds) > 1:
        raise InputError(
            f"{name}: images in {len(kinds)} orientations (a localiser?); one stack of parallel images is needed"
        )
    if min(first.spacing) <= 0:
        raise InputError(f"{name}: pixel spacing {first.spacing.tolist()} mm; it must be above 0; repair the header")
    if any(s.shape != first.shape or np.abs(s.spacing / first.spacing - 1).max() > 1e-3 for s in slices):
        raise InputError(f"{name}: images of different sizes or pixel spacings; one stack of equal images is needed")
    if len({s.file for s in slices}) == 1 and len({s.scale for s in slices}) > 1:  # ITK would use the first for all
        raise InputError(f"{name}: frames with different rescale slopes; export the series as classic DICOM")


def _check_missing(slices: Sequence[Slice], gaps: np.ndarray, usual: float, name: str) -> None:
    wide = np.flatnonzero(gaps > MISSING * usual)
    if not len(wide):
        return
    count = int(sum(round(gaps[i] / usual) - 1 for i in wide)) or len(wide)
    i = int(wide[0])
    one, two = sorted((slices[i].instance, slices[i + 1].instance))
    between = f"between images {one} and {two}" if one != two else f"after image {i + 1}"
    more = f", and in {len(wide) - 1} other place{'s' if len(wide) > 2 else ''}" if len(wide) > 1 else ""
    raise InputError(
        f"{name}: {count} image{'s are' if count > 1 else ' is'} missing {between} (a gap of {gaps[i]:.4g} mm where "
        f"{usual:.4g} mm is usual){more}; export the whole series again"
    )


def _check_drift(slices: Sequence[Slice], name: str) -> None:
    steps = np.array([s.position for s in slices]) - slices[0].position
    drift = np.abs(steps @ slices[0].orientation.T) / slices[0].spacing
    if drift.max() > DRIFT:
        raise InputError(
            f"{name}: images are shifted against each other by up to {drift.max():.3g} pixels (a tilted stack); "
            "resample the series onto a rectangular grid first"
        )


def stack_affine(slices: Sequence[Slice]) -> np.ndarray:
    """4x4 affine from (column, row, slice) to world mm (RAS+) of slices in order."""
    first, last = slices[0], slices[-1]
    row, column = first.orientation
    normal = np.cross(row, column)
    step = float((last.position - first.position) @ normal) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * first.spacing[0], column * first.spacing[1], normal * step], axis=1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
