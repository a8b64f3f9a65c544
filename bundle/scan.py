"""What a reader of any format hands over, and the checks that come before voxels are read."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .compute import free_memory
from .errors import InputError

PEAK = 1e30  # largest magnitude that single precision can square and sum after normalisation
SATURATED = (0.02, 0.5)  # share of the foreground at the largest 8-bit value: warned about, refused
DEFLATE = 1032  # the most that gzip can compress (zlib's technical notes)


class Scan(NamedTuple):
    """A volume as its file holds it.

    ``array`` (D, H, W) in any real type, ``affine`` from voxels to world mm (RAS+), the NIfTI ``codes`` of qform and
    sform, what is known of the ``acquisition`` (never who was scanned), and ``warnings`` for the sidecar.
    """

    array: np.ndarray
    affine: np.ndarray
    codes: tuple[int, int]
    acquisition: dict[str, Any]
    warnings: tuple[str, ...] = ()


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape without trailing axes of length one."""
    shape = tuple(int(n) for n in shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_size(shape: Sequence[int], itemsize: int, stored: int, packed: bool, name: str) -> int:
    """Bytes of the voxels, if the file can hold them and the memory too.

    Args:
        shape: as the header claims.
        itemsize: bytes per voxel in the file.
        stored: bytes on the disk.
        packed: whether they are compressed.
        name: file, for the message.

    Raises:
        InputError: a header that lies about its size (or a truncated file), or too large a volume.
    """
    claimed = math.prod(int(n) for n in shape) * itemsize
    most = stored * DEFLATE if packed else stored
    size = " x ".join(str(int(n)) for n in shape)
    if claimed > most:
        raise InputError(
            f"{name}: the header claims {size} voxels ({claimed:,} bytes), and {stored:,} bytes on the disk can't "
            "hold them; the file is truncated or its header is wrong"
        )
    need, free = math.prod(int(n) for n in shape) * (2 * itemsize + 4), free_memory("cpu")
    if need > free:
        raise InputError(
            f"{name}: {size} voxels need {need / 1e9:.1f} GB of memory to be read, and {free / 1e9:.1f} GB are free"
        )
    return claimed


def check_values(array: np.ndarray, name: str) -> None:
    """Refuse magnitudes that single precision cannot work with (NaN and Inf are looked for later).

    Raises:
        InputError: a finite value beyond 1e30.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    peak = max(abs(float(array.max())), abs(float(array.min())))
    if PEAK < peak < math.inf:
        raise InputError(f"{name}: values up to {peak:.3g}; at most {PEAK:g} are allowed; rescale the intensities")


def saturation(array: np.ndarray, name: str) -> tuple[str, ...]:
    """Warning for an 8-bit image of which a part of the foreground is cut off at the largest value.

    Raises:
        InputError: more than half of the foreground is.
    """
    top = int(array.max())
    foreground = array > array.mean()
    share = float((array == top).sum() / max(1, int(foreground.sum())))
    if share > SATURATED[1]:
        raise InputError(
            f"{name}: {share:.0%} of the foreground has the largest value {top}: a saturated image or a mask; "
            "export it again with a wider intensity range"
        )
    if share > SATURATED[0]:
        return (f"{share:.1%} of the foreground is saturated at {top}; what was cut off cannot be restored",)
    return ()
