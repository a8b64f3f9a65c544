"""The main tables of docs/results.md, made again from the weights in ``models/``."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..data import check_files, read_datalist
from ..errors import InputError
from ..io import prepare_output, sha256, write_json
from ..job import anatomy, evaluate, uncertainty
from .ablation import ROOT
from .hallucination import hallucination
from .morphometry import morphometry

FACTORS = ((2, 2, 2), (1, 1, 3))


def tables(dataset_dir: str) -> dict[str, Callable[[Path], object]]:
    """What makes every table, by name; each takes the folder it writes to."""
    data = str(ROOT / "configs" / "datalist.json")
    regression = f"regression={ROOT / 'models' / 'model_regression.pt'}"
    real, simulated = "reported", "reported_simulated"
    items = {name: partial(read_datalist, data, name, dataset_dir) for name in (real, simulated)}
    judged = partial(evaluate, data, dataset_dir=dataset_dir, tissue=False)
    return {
        "real": lambda f: judged(f, section=real, protocols=["A", "B", "C"], factors=FACTORS, networks=regression),
        "simulated": lambda f: judged(f, section=simulated, protocols=["A"], factors=FACTORS),
        "tissue": lambda f: anatomy(data, f, dataset_dir),
        "uncertainty": lambda f: uncertainty(data, f, f"{real},{simulated}", dataset_dir, 1, None, False),
        "morphometry": lambda f: morphometry(items[real](), f, FACTORS[:1], "A"),
        "hallucination": lambda f: hallucination(items[real](), f, FACTORS[:1], "A"),
        "hallucination_7T": lambda f: hallucination(items[simulated]()[:1], f, FACTORS[:1], "A"),
    }


def reproduce(folder: Path, dataset_dir: str, only: Sequence[str] | None = None) -> None:
    """Make every table in a subfolder of its own, with ``table.json`` that tells the weights and seconds beside it.

    A table whose ``table.json`` is there, made of the same weights, is not made again.

    Raises:
        InputError: an unknown name, or data that are missing.
    """
    made = tables(dataset_dir)
    for name in only or ():
        if name not in made:
            raise InputError(f"--only {name!r}: allowed are {', '.join(made)}")
    check_data(dataset_dir)
    folder, weights = prepare_output(folder), weights_used()
    for name in only or made:
        record = folder / name / "table.json"
        if record.exists() and json.loads(record.read_text())["weights"] == weights:
            print(f"{record.parent}: done before")
            continue
        print(f"\n{name}", flush=True)
        began = time.time()
        made[name](prepare_output(record.parent))
        write_json(record, {"seconds": round(time.time() - began), "weights": weights})
    print(f"\n{folder}: all tables are there")


def weights_used() -> Mapping[str, str]:
    """SHA-256 of every file of weights."""
    return {path.name: sha256(path) for path in sorted((ROOT / "models").glob("*.pt"))}


def check_data(dataset_dir: str) -> None:
    """See that all volumes are there before the first table begins.

    Raises:
        InputError: one is not.
    """
    check_files(read_datalist(str(ROOT / "configs" / "datalist.json"), "reported,reported_simulated", dataset_dir))
