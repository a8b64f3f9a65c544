"""The main job as an ignite engine: a cohort of volumes, of which some may be refused."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from ..bids import check_derivatives
from ..compute import pick_device
from ..errors import InputError, one_line
from ..io import dicom_folder, prepare_output
from ..networks.weights import read_weights
from ..records import Record, find_records


def preflight(
    source: str | None, output_dir: str, weights: str, device: str | None, options: Mapping[str, Any] | None = None
) -> None:
    """Refuse what can be refused before anything is loaded: one line, exit status 1.

    Raises:
        SystemExit: no input, two inputs with one result, no weights, no such device, an output folder that cannot be
            written.
    """
    try:
        if source is None:
            raise InputError("--input is missing; name a volume, a folder, a BIDS root or a datalist")
        records = _records(source, options or {})
        _check_names(records)
        _check_output(records, output_dir, options or {})
        pick_device(device)
        read_weights(weights)
        prepare_output(output_dir)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def _records(source: str, options: Mapping[str, Any]) -> list[Record]:
    return find_records(str(source), str(options.get("series", "all")), options.get("dataset_dir"))


def _check_names(records: list[Record]) -> None:
    names: dict[str, Record] = {}
    for record in records:
        twin = names.setdefault(record.result(), record)
        if twin is not record:
            twin_name = Path(twin.label).name
            raise InputError(f"{record.label} and {twin_name} would both become {record.result()}; rename one")


def _check_output(records: list[Record], output_dir: str, options: Mapping[str, Any]) -> None:
    """See that the kind of output that is asked for can be made of these inputs."""
    if any(record.bids_root for record in records):
        check_derivatives(Path(output_dir))
    others = [record for record in records if not record.dicom]
    if options.get("dicom") and others:
        raise InputError(f"{others[0].label}: --dicom true needs a DICOM input, whose patient and study it keeps")


def list_items(
    source: str | None, output_dir: str, overwrite: bool, options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One item per volume that is still to do (see :meth:`bundle.records.Record.item`); none without a source."""
    options, items = options or {}, []
    for record in [] if source is None else _records(source, options):
        result = Path(output_dir) / record.result()
        if not overwrite and result.exists() and (not options.get("dicom") or dicom_folder(result).exists()):
            name = one_line(Path(record.label).name)
            print(f"{name}: done before, skipped (--overwrite true makes it again)")
        else:
            items.append(record.item())
    return items


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
            return {"refused": str(reason), "path": self.data[index].get("path", self.data[index]["image"])}


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
                print(one_line(f"{path.name} -> {item['result']}"))
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                raise
            message = str(reason)
            name = one_line(path.name)
            self.refused.append(message if name in message else f"{one_line(str(path))}: {message}")
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
