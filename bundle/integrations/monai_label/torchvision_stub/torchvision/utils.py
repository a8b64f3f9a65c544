"""The two names that MONAI Label imports."""

from typing import Any


def make_grid(*args: Any, **kwargs: Any) -> None:
    """Not here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("this environment has no torchvision; install it for DeepEdit's pictures")


save_image = make_grid
