"""The commands' work: each runs what the configs describe."""

import logging
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from .compute import pick_device
from .data import read_datalist
from .errors import InputError
from .evaluation import PROTOCOLS, classical_methods, compare, network_method, write_tables
from .io import find_volumes, prepare_output
from .networks.weights import load_super_resolver
from .options import parse_options

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "models" / "model.pt"


def enhance(path: str, output_dir: str, **options: Any) -> None:
    """Run ``configs/inference.json`` on ``path``.

    Raises:
        InputError: a refused option.
        SystemExit: nothing at ``path``, or volumes were refused; the message lists them.
    """
    parse_options(**options)
    if not (ROOT / "configs").is_dir():
        raise InputError(f"{ROOT}: no configs here; install the bundle from a clone with pip install -e")
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # "logging file is set to False"
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(ROOT),
        input=path,
        output_dir=output_dir,
        **options,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def evaluate(
    data: str,
    output_dir: Path,
    section: str,
    dataset_dir: str,
    protocols: Sequence[str],
    factors: Sequence[Sequence[int]],
    regression: str | None,
    device: str | None,
) -> None:
    """Write and print the tables of :mod:`bundle.evaluation`."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise InputError(f"--protocols {name!r}: allowed are {', '.join(PROTOCOLS)}")
    try:
        factors = [tuple(operator.index(n) for n in (d, h, w)) for d, h, w in factors]  # whole numbers only
        sound = min(n for f in factors for n in f) > 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(f"--factors {factors}: allowed are lists of three whole numbers: [[2,2,2],[1,1,3]]")
    if data.endswith(".json"):
        items = read_datalist(data, section, dataset_dir)
    else:
        items = [{"image": str(path)} for path in find_volumes(data)]
    folder, where = prepare_output(output_dir), pick_device(device)
    methods = classical_methods()
    if regression is not None:
        methods["regression"] = network_method(load_super_resolver(regression), where)
    network = load_super_resolver(WEIGHTS)
    methods["bundle, not projected"] = network_method(network, where, project=False)
    methods["bundle"] = network_method(network, where)
    print(write_tables(compare(items, methods, protocols, factors), folder))
