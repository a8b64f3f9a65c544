"""The main job as an ignite engine: a cohort of volumes, of which some may be refused."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from tqdm import tqdm

from ..bids import check_derivatives
from ..compute import pick_device
from ..errors import InputError, one_line
from ..failures import Failure, save, summary
from ..gradients import read_coefficients
from ..io import dicom_folder, join_name, prepare_output
from ..networks.weights import load, read_weights
from ..records import Record, find_records


def preflight(
    source: str | None,
    output_dir: str,
    weights: str,
    device: str | None,
    check_weights: bool = True,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what can be refused before anything is loaded: one line, exit status 1.

    Raises:
        SystemExit: no input, two inputs with one result, no weights, no such device, an output folder that cannot be
            written, bad coefficients.
    """
    try:
        if source is None:
            raise InputError("--input is missing; name a volume, a folder, a BIDS root or a datalist")
        records = _records(source, options or {})
        _check_names(records)
        _check_output(records, output_dir, options or {})
        pick_device(device)
        read_weights(weights, check_weights)
        coefficients = (options or {}).get("gradient_coefficients")
        if coefficients is not None:
            read_coefficients(coefficients)
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
    options = options or {}
    items = [] if source is None else [record.item() for record in _records(source, options)]
    done = [] if overwrite else [item for item in items if _is_done(item, output_dir, bool(options.get("dicom")))]
    if done:
        one = one_line(Path(label(done[0])).name)
        print(
            f"{one if len(done) == 1 else f'{len(done)} of {len(items)} volumes'}: done before, skipped "
            "(--overwrite true makes them again)"
        )
    return [item for item in items if item not in done]


def _is_done(item: Mapping[str, Any], output_dir: str | Path, dicom: bool) -> bool:
    result = expected_result(item, output_dir)
    return result.exists() and (not dicom or dicom_folder(result).exists())


def expected_result(item: Mapping[str, Any], output_dir: str | Path) -> Path:
    """Where the result of an item will be; when it is there, the volume is done."""
    return Path(output_dir) / join_name(item["stem"], item["suffix"])


def label(item: Mapping[str, Any]) -> str:
    """What messages call the volume of an item."""
    return str(item.get("path", item["image"]))


class CohortDataset(Dataset):
    """Dataset whose items may be refused: a refused one is ``{"refused": error}`` instead of an exception."""

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            name = label(self.data[index])
            return {"refused": Failure.of(name, error), "path": name}


class LoadWeights:
    """Handler that loads a network before the first run of an engine.

    Args:
        network: to be filled.
        path: of its weights.
        check: whether they must be the shipped ones, see :func:`bundle.networks.weights.read_weights`.
    """

    def __init__(self, network: torch.nn.Module, path: str, check: bool = True) -> None:
        self.network, self.path, self.check, self.loaded = network, path, check, False

    def attach(self, engine: SupervisedEvaluator) -> None:
        """Register at the start."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: SupervisedEvaluator) -> None:
        """Load, the first time."""
        if not self.loaded:
            load(self.network, self.path, self.check)
            self.loaded = True


class Enhancer(SupervisedEvaluator):
    """Evaluator over a cohort: goes on after refused volumes, and ends with a table of them.

    Args:
        on_error: ``continue`` with the next volume, or ``stop``. After a result that cannot be written it always stops.
        output_dir: folder of the results, for the table of failures.
        workers: local processes that share the volumes, see :mod:`bundle.cohort`; 0: this one does all.
        scheduler: of a cluster that does, likewise.
        kwargs: of :class:`monai.engines.SupervisedEvaluator`.
    """

    def __init__(
        self,
        on_error: str = "continue",
        output_dir: str = ".",
        workers: int = 0,
        scheduler: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_error, self.output_dir, self.workers, self.scheduler = on_error, output_dir, workers, scheduler
        self.failures: list[Failure] = []
        self.results: list[str] = []

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict:
        path = batchdata["path"][0]
        try:
            if "refused" in batchdata:
                failure, output = Failure(*(part[0] for part in batchdata["refused"])), {}
            else:
                failure, output = None, super()._iteration(engine, batchdata)
                for item in engine.state.output:
                    self.done(path, item["result"])
        except Exception as error:
            failure, output = Failure.of(path, error), {}
        if failure is not None and self.failed(failure):
            engine.terminate()
        return output

    def done(self, path: str, result: str) -> None:
        """Take down a result, and tell."""
        self.results.append(result)
        tqdm.write(f"{one_line(Path(path).name)} -> {one_line(result)}")

    def failed(self, failure: Failure) -> bool:
        """Take down a failure; whether the cohort ends with it."""
        self.failures.append(failure)
        return self.on_error == "stop" or failure.final

    def process(self, item: dict[str, Any]) -> Failure | str:
        """One volume: its failure, or the path of its result. What an engine on another process is asked to do."""
        self.failures, self.results = [], []
        self.data_loader.dataset.data, self.state.epoch_length = [item], 1
        super().run()
        return self.failures[0] if self.failures else self.results[0]

    def run(self, global_epoch: int = 1) -> None:
        """Work through the cohort.

        Raises:
            SystemExit: volumes were refused; the message lists them.
        """
        items = self.data_loader.dataset.data
        try:
            if items and (self.scheduler or min(self.workers, len(items)) > 1):
                from ..cohort import distribute  # needs Dask

                distribute(self, items)
            elif items:
                super().run(global_epoch)
            order = {label(item): k for k, item in enumerate(items)}
            self.failures.sort(key=lambda failure: order.get(failure.path, -1))
            table = save(self.failures, len(items), self.output_dir) if items else None
        except InputError as error:
            raise SystemExit(f"error: {error}") from None
        if self.failures:
            sys.stdout.flush()
            undone = len(items) - len(self.results) - len(self.failures)
            words = summary(self.failures, len(items), undone)
            raise SystemExit(words + (f"\nThis table: {one_line(str(table))}" if table else ""))
