"""MONAI without the optional packages that it looks for and the main job never uses.

``import monai`` imports whatever of its optional packages is installed: matplotlib, scikit-learn, parts of SciPy,
TensorBoard. PyTorch-Ignite imports PyTorch's sharded training for the sake of one ``isinstance``. For a command that
works for a few seconds this is a third of its time (docs/performance.md).
"""

import gc
import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

UNUSED = (
    *("matplotlib", "sklearn", "pandas", "scipy.signal", "scipy.stats", "skimage", "nilearn", "PIL", "cucim"),
    *("tensorboard", "torch.utils.tensorboard", "onnx", "onnxruntime", "tensorrt", "mlflow", "clearml", "transformers"),
)
_SHARDED = "torch.distributed.optim"


class _Hidden:
    """Finder that says of some packages that they are not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is hidden by {__name__} while MONAI is imported", name=name)


@contextmanager
def hidden(names: Sequence[str] = UNUSED) -> Iterator[None]:
    """Within the block, packages that are not imported yet cannot be; after it, they can."""
    finder = _Hidden(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Within the block nothing is searched for garbage, nor ever again what was made there: modules are none."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _without_sharding() -> Iterator[None]:
    """Within the block, ``ZeroRedundancyOptimizer`` is a class that nothing is an instance of."""
    if _SHARDED in sys.modules:
        yield
        return
    importlib.import_module("torch.distributed")
    stand_in = types.ModuleType(_SHARDED)
    stand_in.ZeroRedundancyOptimizer = type("ZeroRedundancyOptimizer", (), {})
    sys.modules[_SHARDED] = stand_in
    try:
        yield
    finally:
        del sys.modules[_SHARDED]


def import_monai() -> None:
    """Import MONAI and ignite in a third to half of the time; does nothing where MONAI is there already.

    In this process MONAI then behaves as if the packages of :data:`UNUSED` were not installed. Our own code, and
    everything imported later, is not concerned. For commands that neither train nor plot with MONAI.
    """
    if "monai" in sys.modules:
        return
    with _uncollected(), hidden(), _without_sharding():
        importlib.import_module("monai.bundle")
        importlib.import_module("ignite.handlers")
        importlib.import_module("bundle.job")
