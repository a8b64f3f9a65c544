"""A cohort on several processes or machines, by Dask distributed: one volume per task.

Dask hands every volume to one worker and the volumes of a lost worker to the others. Every worker builds the workflow
of the config once. Dask pickles what it sends between its processes, so its addresses are for trusted machines only;
local ones speak TLS with keys that live as long as the run.
"""

import contextlib
import copy
import functools
import importlib.util
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from . import __version__
from .compute import share_machine
from .errors import InputError
from .failures import Failure
from .options import surrounding_workflow

if TYPE_CHECKING:
    from distributed import Client, Future

    from .engines.enhance import Enhancer

BAR = "[{n_fmt}/{total_fmt}] {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"  # as ignite's, the last one is the ETA
KILLED = (
    "the process that worked on it was killed every time, as the system does when memory runs out; "
    "give it less --workers or a larger --target_spacing"
)
PATIENCE = 30  # seconds that a scheduler may take to answer
_ONE = threading.Lock()  # one volume at a time in a process, however many threads Dask gives it


class Job(NamedTuple):
    """What every task is told.

    ``config`` as JSON, ``folder`` that its paths and those of the items are relative to, the ``version`` that wrote it,
    and how many ``processes`` share a machine, a ``local`` one or one of a cluster.
    """

    config: str
    folder: str
    version: str
    processes: int
    local: bool


def distribute(evaluator: "Enhancer", items: Sequence[Mapping[str, Any]]) -> None:
    """Have the workers do all items; the evaluator is told of every result and failure.

    Args:
        evaluator: whose ``workers`` or ``scheduler`` say who works.
        items: as the evaluator's dataset has them.

    Raises:
        InputError: no Dask, no cluster at the address, or a config that is not plain data.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError("--workers and --scheduler need Dask; run: pip install '.[cluster]', or do without them")
    workflow = surrounding_workflow()
    config = portable(None if workflow is None else workflow.parser.config)
    local = min(evaluator.workers, len(items))
    with _cluster(local, evaluator.scheduler) as client:
        job = Job(config, os.getcwd(), __version__, local or _crowd(client), local > 0)
        _work_through(client, job, evaluator, items)


def portable(config: Mapping[str, Any] | None) -> str:
    """A config as JSON, without its input and its cohort.

    Raises:
        InputError: there is none, or it holds what JSON cannot.
    """
    if config is None:
        raise InputError("--workers and --scheduler work within a config's workflow only")
    plain = {**copy.deepcopy(dict(config)), "input": None, "dataset_dir": None, "workers": 0, "scheduler": None}
    plain["output_dir"] = str(plain["output_dir"])  # a Path, where the command set it
    try:
        return json.dumps(plain)
    except TypeError as error:
        raise InputError(f"--workers and --scheduler need a config of plain data ({error})") from error


@contextlib.contextmanager
def _cluster(workers: int, scheduler: str | None) -> Iterator["Client"]:
    """A client of ``workers`` local processes, or of the cluster at an address or in a scheduler file."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its stories of lost workers; we tell what matters
    if scheduler is not None:
        where = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
        try:
            client = Client(**where, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there ({error})") from error
        with client:
            if not client.scheduler_info(n_workers=-1)["workers"]:
                print(f"waiting for the first worker of {scheduler}", flush=True)
                client.wait_for_workers(1)
            yield client
        return
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "security": _security()}
    with (
        LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _security() -> Any:
    """Keys for this run, so that nobody else on the machine can send work to its workers."""
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise InputError("--workers needs the package cryptography; run: pip install '.[cluster]'") from error


def _crowd(client: "Client") -> int:
    """Most workers on one machine."""
    hosts = Counter(worker["host"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    return max(hosts.values())


def _work_through(client: "Client", job: Job, evaluator: "Enhancer", items: Sequence[Mapping[str, Any]]) -> None:
    """Submit every item and take the results as they come; one whose workers were killed is tried once more, last.

    It may have been killed for its neighbour's sake: Dask suspects all that was waiting at a worker.
    """
    from distributed import KilledWorker, as_completed

    from .engines.enhance import label

    pending, again = {}, set()
    for item in items:
        pending[_submit(client, job, item, evaluator.output_dir)] = item
    queue = as_completed(pending, loop=client.loop)
    with tqdm(total=len(items), bar_format=BAR, disable=None) as bar:
        for future in queue:
            item = pending.pop(future)
            name = label(item)
            try:
                outcome = future.result()
            except KilledWorker:
                if name not in again:
                    again.add(name)
                    retry = _submit(client, job, item, evaluator.output_dir, priority=-1)
                    pending[retry] = item
                    queue.add(retry)
                    continue
                outcome = Failure(name, KILLED)
            except Exception as error:
                outcome = Failure.of(name, _explained(error))
            bar.update()
            if isinstance(outcome, str):
                evaluator.done(name, outcome)
            elif evaluator.failed(outcome._replace(path=name)):
                client.cancel(list(pending))
                return


def _submit(client: "Client", job: Job, item: Mapping[str, Any], output_dir: str, priority: int = 0) -> "Future":
    from .engines.enhance import expected_result

    result = os.path.abspath(expected_result(item, output_dir))
    return client.submit(enhance_one, job, dict(item), result, stamp(result), pure=False, priority=priority)


def _explained(error: Exception) -> Exception:
    """In words that help: a worker that cannot even read its task."""
    if isinstance(error, ImportError | AttributeError):
        return InputError(
            f"a worker cannot load this software ({error}); install version {__version__} for the workers"
        )
    return error


def stamp(path: str) -> tuple[int, int] | None:
    """What tells a file from one that took its place; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def enhance_one(job: Job, item: dict[str, Any], result: str, before: tuple[int, int] | None) -> Failure | str:
    """The task: on a worker, the failure of one volume, or the path of its result.

    A worker can be lost after its volume was done and before it could say so. The next one finds a result that was
    not there ``before`` and leaves it at that.
    """
    with _ONE:
        if stamp(result) != before:
            return result
        if job.version != __version__:
            return Failure(str(item["image"]), f"a worker has version {__version__}, and {job.version} sent it work")
        if not os.path.isdir(job.folder):
            return Failure(str(item["image"]), f"{job.folder}: no such folder where the worker runs")
        os.chdir(job.folder)
        with contextlib.redirect_stdout(sys.stderr):  # the first process tells of results
            outcome = _workflow(job).process(item)
        return outcome if isinstance(outcome, str) else Failure(*outcome)


@functools.lru_cache(maxsize=1)
def _workflow(job: Job) -> "Enhancer":
    """The evaluator of the config, built when the first volume comes."""
    from dask.system import CPU_COUNT
    from distributed import get_worker

    worker, config = get_worker(), json.loads(job.config)
    config["output_dir"] = Path(config["output_dir"])  # not a text, in which a config would look for its signs
    limit = worker.memory_manager.memory_limit
    share_machine(job.processes, limit and int(0.9 * limit))  # Dask ends a worker at 95 %
    alone = not job.local and (os.cpu_count() or 1) > CPU_COUNT  # a batch job or container with cores of its own
    torch.set_num_threads(max(1, CPU_COUNT if alone else CPU_COUNT // job.processes))
    if job.local and isinstance(worker.name, int):
        config["device"] = own_device(config.get("device"), worker.name, torch.cuda.device_count())
    return ConfigParser(config).get_parsed_content("evaluator")


def own_device(device: str | None, index: int, count: int) -> str | None:
    """The GPU of a local worker: they take turns where the choice was open."""
    return f"cuda:{index % count}" if device in (None, "cuda") and count > 1 else device
