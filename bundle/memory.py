"""What to do when memory runs out: the same again in smaller tiles."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import InputError

T = TypeVar("T")
_STEP = 8  # sides of tiles are multiples of this
# what PyTorch on the CPU, C++, oneDNN and Python's threads say
_WORDS = (
    *("can't allocate memory", "not enough memory", "bad_alloc"),
    *("could not create a primitive", "could not execute a primitive", "can't start new thread"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in PyTorch's own allocator, in its libraries or in NumPy."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS))


def with_smaller_tiles(
    run: Callable[[int | None], T], tile: int | None, shape: Sequence[int], least: int
) -> tuple[T, int | None]:
    """``run(tile)``, and where memory runs out again with tiles of two thirds of the side, until it fits.

    Args:
        run: takes the side of the tiles in voxels, None for the whole volume.
        tile: side to begin with.
        shape: of the volume.
        least: side below which tiles make no sense.

    Returns:
        What ``run`` gave, and the side that it was given.

    Raises:
        InputError: tiles of ``least`` are too large as well.
    """
    while True:
        try:
            return run(tile), tile
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            side = min(tile or max(shape), max(shape))
            if side <= least:
                size, todo = math.prod(shape) / 1e6, "close other programs, or choose --device cpu or a larger"
                reason = (
                    f"not enough memory for a result of {size:.0f} million voxels, in tiles of {side} voxels either"
                )
                raise InputError(f"{reason}; {todo} --target_spacing") from error
        # after the block, whose error holds all that was allocated
        tile = max(least, side * 2 // 3 // _STEP * _STEP)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
