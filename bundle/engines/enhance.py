"""The main job as an ignite engine: a cohort of volumes, of which some may be refused."""

import sys
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from ..compute import pick_device
from ..errors import InputError
from ..io import find_volumes, prepare_output, result_name
from ..networks.weights import read_weights


def preflight(source: str | None, output_dir: str, weights: str, device: str | None) -> None:
    """Refuse what can be refused before anything is loaded: one line, exit status 1.

    Raises:
        SystemExit: no input, two inputs with one result, no weights, no such device, an output folder that cannot be
            written.
    """
    try:
        if source is None:
            raise InputError("--input is missing; name a volume or a folder of volumes")
        _check_names(find_volumes(source))
        pick_device(device)
        read_weights(weights)
        prepare_output(output_dir)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def _check_names(paths: list[Path]) -> None:
    names: dict[str, Path] = {}
    for path in paths:
        twin = names.setdefault(result_name(path), path)
        if twin is not path:
            raise InputError(f"{path} and {twin.name} would both become {result_name(path)}; rename one")


def list_items(source: str | None, output_dir: str, overwrite: bool) -> list[dict[str, str]]:
    """One item ``{"image": path}`` per volume that is still to do; none without a source."""
    paths = [] if source is None else find_volumes(source)
    done = [p for p in paths if not overwrite and (Path(output_dir) / result_name(p)).exists()]
    for path in done:
        print(f"{path.name}: done before, skipped (--overwrite true makes it again)")
    return [{"image": str(p)} for p in paths if p not in done]


def _reason(error: BaseException | None) -> InputError | None:
    """The refusal behind an error that MONAI has wrapped, if there is one."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        if isinstance(error, OSError) and error.strerror:
            return InputError(f"{error.filename or 'output'}: {error.strerror}")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
            return InputError("not enough memory; choose a smaller --max_memory or a larger --target_spacing")
        error = error.__cause__
    return None


class CohortDataset(Dataset):
    """Dataset whose items may be refused: a refused one is ``{"refused": message}`` instead of an exception."""

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                raise
            return {"refused": str(reason), "path": self.data[index]["image"]}


class Enhancer(SupervisedEvaluator):
    """Evaluator over a cohort: goes on after refused volumes, and ends with a table of them.

    Args:
        on_error: ``continue`` with the next volume, or ``stop``.
        kwargs: of :class:`monai.engines.SupervisedEvaluator`.
    """

    def __init__(self, on_error: str = "continue", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_error = on_error
        self.refused: list[str] = []

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict:
        path = Path(batchdata["path"][0])
        try:
            if "refused" in batchdata:
                raise InputError(batchdata["refused"][0])
            output = super()._iteration(engine, batchdata)
            for item in engine.state.output:
                print(f"{path.name} -> {item['result']}")
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                raise
            message = str(reason)
            self.refused.append(message if path.name in message else f"{path}: {message}")
            if self.on_error == "stop":
                engine.terminate()
            output = {}
        return output

    def run(self, global_epoch: int = 1) -> None:
        """Work through the cohort.

        Raises:
            SystemExit: volumes were refused; the message lists them.
        """
        if len(self.data_loader) > 0:
            super().run(global_epoch)
        if self.refused:
            lines = "\n".join(f"error: {message}" for message in self.refused)
            total = len(self.data_loader)
            count = f"\n{len(self.refused)} of {total} volumes were refused" if total > 1 else ""
            sys.stdout.flush()
            raise SystemExit(lines + count)
