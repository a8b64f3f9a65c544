"""What validation looks like, as pictures in TensorBoard."""

from collections.abc import Mapping, Sequence

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

PANELS = (CommonKeys.IMAGE, CommonKeys.PRED, CommonKeys.LABEL)


class ImageLog:
    """After each validation, the middle slices of a few volumes, in three planes: input, prediction and truth.

    One picture per volume, of the same window for all three panels, so that what looks brighter is brighter; the fourth
    column is the absolute error, four times as bright. Intensities stand between 0 and 1; whole numbers, such as
    tissues, are spread over that range by the largest of the truth. Attach it to the validator.

    Args:
        folder: of the TensorBoard event files.
        volumes: how many of a validation are shown, the first ones.

    Example::

        ImageLog("runs/student").attach(evaluator)   # then: tensorboard --logdir runs/student
    """

    def __init__(self, folder: str, volumes: int = 2) -> None:
        if volumes < 1:
            raise ValueError(f"volumes {volumes}: at least 1")
        self.folder, self.volumes = folder, volumes
        self.shown = 0

    def attach(self, engine: Engine) -> None:
        """Register on every iteration of a validation."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """A validation begins."""
        self.shown = 0

    def __call__(self, engine: Engine) -> None:
        """Write what is new of the engine's output: a list of items, each with ``image``, ``pred`` and ``label``."""
        items = engine.state.output[: self.volumes - self.shown]
        if not items or idist.get_rank() > 0:  # several processes see the same validation
            return
        with SummaryWriter(self.folder) as writer:
            for item in items:
                writer.add_image(f"validation/{self.shown}", picture(item), engine.state.epoch)
                self.shown += 1


def picture(item: Mapping[str, Tensor], planes: Sequence[int] = (2, 1, 0)) -> Tensor:
    """Rows of planes, columns of input, prediction, truth and error: (1, height, width) from 0 to 1.

    Args:
        item: ``image``, ``pred`` and ``label``, each (C, D, H, W), of which the first channel is shown.
        planes: axes that are cut across, one row each.
    """
    image, pred, label = (torch.as_tensor(item[key]).detach().cpu()[0] for key in PANELS)
    top = 1.0 if label.is_floating_point() else max(1.0, float(label.max()))
    volumes = [image.float(), pred.float() / top, label.float() / top]
    volumes.append(4 * (volumes[1] - volumes[2]).abs())
    side = max(label.shape)
    rows = [torch.cat([_slice(volume, axis, side) for volume in volumes], dim=1) for axis in planes]
    return torch.cat(rows)[None]


def _slice(volume: Tensor, axis: int, side: int) -> Tensor:
    """The middle slice across ``axis``, the second of its axes up, padded to a square of ``side``."""
    plane = volume.select(axis, volume.shape[axis] // 2).T.flip(0).clamp(0, 1)
    height, width = plane.shape
    return F.pad(plane, (0, side - width, 0, side - height))
