"""The commands' work: each runs what the configs describe."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow

from .compute import pick_device
from .data import read_datalist, read_sections
from .errors import InputError
from .evaluation import PROTOCOLS, classical_methods, compare, network_method, write_tables
from .given import read_given
from .io import find_volumes, prepare_output
from .networks.anatomy import AnatomyExtractor
from .networks.super_resolver import SuperResolver
from .networks.weights import load, load_super_resolver, write_weights
from .options import OPTIONS, parse_options

ROOT = Path(__file__).resolve().parent.parent
FACTORS = (2, 2, 2)  # of the volumes that uncertainty is judged on


def load_model(name: str | None = None) -> tuple[SuperResolver, Path]:
    """A network of this bundle in evaluation mode, and the file of its weights.

    Args:
        name: of an overlay ``configs/model_NAME.json``, which says the network and, in ``models/``, has its weights;
            None for the one of ``configs/inference.json``.

    Raises:
        InputError: no such model, or no weights.
    """
    config = ROOT / "configs" / ("inference.json" if name is None else f"model_{name}.json")
    if not config.is_file():
        raise InputError(f"--model {name}: no {config}")
    definition = dict(json.loads(config.read_text())["network_def"])
    definition.pop("_target_")
    path = ROOT / "models" / ("model.pt" if name is None else f"model_{name}.pt")
    return load(SuperResolver(**definition), path), path


def enhance(path: str, output_dir: str, **options: Any) -> None:
    """Run ``configs/inference.json`` on ``path``: :func:`enhance_watched` without anyone who watches."""
    enhance_watched(path, output_dir, None, **options)


def enhance_watched(path: str, output_dir: str, watch: Callable[[Engine], None] | None, **options: Any) -> None:
    """Run ``configs/inference.json`` on ``path``.

    Values reach the config as plain data: it would run a text that begins with a dollar sign.

    Args:
        path: of a volume or a folder of volumes.
        output_dir: folder for the results.
        watch: is given the engine before it runs, to attach handlers, such as one that shows progress.
        options: see :mod:`bundle.options`.

    Raises:
        InputError: a refused option.
        SystemExit: nothing at ``path``, or volumes were refused; the message lists them.
    """
    parse_options(**options)
    given = {name: OPTIONS[name].read(name, value) for name, value in options.items() if value is not None}
    if not (ROOT / "configs").is_dir():
        raise InputError(f"{ROOT}: no configs here; install the bundle from a clone with pip install -e")
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # "logging file is set to False"
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(ROOT),
        input=Path(path),  # of no text that begins with one of the config's signs, or holds a '#'
        output_dir=Path(output_dir),
        **given,
    )
    workflow.initialize()
    if watch is not None:
        watch(workflow.parser.get_parsed_content("evaluator"))
    workflow.run()
    workflow.finalize()


def evaluate(
    data: str,
    output_dir: str | Path,
    section: str = "reported",
    dataset_dir: str = ".",
    protocols: Sequence[str] = ("A", "B"),
    factors: Sequence[Sequence[float]] = ((2, 2, 2), (1, 1, 3)),
    networks: str | None = None,
    model: str | None = None,
    device: str | torch.device | None = None,
    tissue: bool = True,
    plots: bool = True,
    network: SuperResolver | None = None,
) -> list[dict]:
    """Write and print the tables of :mod:`bundle.evaluation`, and draw them.

    Args:
        data: a volume, a folder, or a datalist, whose items are volumes, label maps or pairs (``low``, ``high``).
        output_dir: for ``results.csv``, ``results.json`` and the plots.
        section: of the datalist, or several with commas between.
        dataset_dir: folder that the datalist's paths are relative to.
        protocols: how volumes are degraded.
        factors: likewise, whole numbers or halves.
        networks: NAME=FILE, several with commas between.
        model: name of another network, see :func:`load_model`.
        device: where networks run.
        tissue: whether the anatomy extractor's Dice is part of the table.
        plots: whether to draw.
        network: takes the place of the bundle's own.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise InputError(f"--protocols {name!r}: allowed are {', '.join(PROTOCOLS)}")
    factors = parse_factors(factors)
    others = parse_networks(networks)
    items = read_items(str(data), section, dataset_dir)
    where, gallery = pick_device(device), _gallery() if plots else None
    folder, methods = prepare_output(output_dir), classical_methods()
    for name, weights in others:
        methods[name] = network_method(load_super_resolver(weights), where)
    for name in (None, model) if model else (None,):
        own = network if name is None and network is not None else load_model(name)[0]
        methods[f"{name or 'bundle'}, not projected"] = network_method(own, where, project=False)
        methods[name or "bundle"] = network_method(own, where)
    rows = compare(items, methods, protocols, factors, load_anatomy() if tissue else None, gallery, where)
    print(write_tables(rows, folder))
    for path in gallery.draw(folder, "bundle") if gallery else []:
        print(f"{path}: drawn")
    return rows


def evaluate_bundle(network: SuperResolver, weights: str, **arguments: Any) -> None:
    """The ``run`` of ``configs/evaluate.json``: :func:`evaluate` with the network that the config defines.

    Raises:
        SystemExit: something was refused; the message is one line.
    """
    try:
        evaluate(network=load(network, weights), **arguments)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def load_anatomy() -> AnatomyExtractor:
    """The anatomy extractor of the repository, in evaluation mode."""
    network = load(AnatomyExtractor(), ROOT / "models" / "model_anatomy.pt")
    return network.to(memory_format=torch.channels_last_3d)


def read_items(data: str, section: str, dataset_dir: str) -> list[dict]:
    """Items to evaluate: of sections of a datalist, or the volumes of a folder."""
    if not data.endswith(".json"):
        return [{"image": str(path)} for path in find_volumes(data)]
    items = []
    for name in section.split(","):
        given = any(isinstance(item, dict) and {"low", "high"} & set(item) for item in read_sections(data, name)[name])
        items += (read_given if given else read_datalist)(data, name, dataset_dir)
    if not items:
        raise InputError(f"{data}: section {section!r} is empty; there is nothing to evaluate")
    return items


def parse_factors(factors: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """Lists of three whole numbers or halves each, from 1.

    Raises:
        InputError: they are something else.
    """
    try:
        found = [tuple(float(n) for n in (d, h, w)) for d, h, w in factors]
        sound = all(n >= 1 and (2 * n).is_integer() for f in found for n in f)
        found = [tuple(int(n) if n.is_integer() else n for n in f) for f in found]
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        allowed = "lists of three whole numbers: [[2,2,2],[1,1,3]], or halves: [[1.5,1.5,1.5]]"
        raise InputError(f"--factors {factors}: allowed are {allowed}")
    return found


def _gallery() -> "Gallery":  # noqa: F821  (matplotlib is loaded only where it draws)
    try:
        from .evaluation_plots import Gallery
    except ImportError as error:
        raise InputError("the plots need the package matplotlib; pip install matplotlib, or --plots false") from error
    return Gallery()


def guidance(
    data: str, output_dir: Path, networks: str, section: str, dataset_dir: str, protocol: str, seed: int
) -> None:
    """Write and print the table of :mod:`bundle.guided_evaluation`."""
    from .guided_evaluation import evaluate_guidance

    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol!r}: allowed are {', '.join(PROTOCOLS)}")
    found = {name: load_super_resolver(weights) for name, weights in parse_networks(networks)}
    items = read_datalist(data, section, dataset_dir)
    print(evaluate_guidance(items, found, protocol, prepare_output(output_dir), seed))


def parse_networks(text: str | None) -> list[tuple[str, str]]:
    """Names and files of ``NAME=FILE,NAME=FILE``.

    Raises:
        InputError: it is not of that form.
    """
    pairs = [part.partition("=")[::2] for part in str(text).split(",")] if text else []
    if not all(name and weights for name, weights in pairs):
        raise InputError(f"--networks {text}: allowed is NAME=FILE, several with commas between")
    return pairs


def uncertainty(
    data: str, output_dir: Path, section: str, dataset_dir: str, samples: int, model: str | None, scale: bool
) -> None:
    """Judge the uncertainty map on sections of a datalist; with ``scale``, calibrate it there and save the weights."""
    from .calibration import calibrate, judge_all, report

    folder, where = prepare_output(output_dir), pick_device(None)
    network, path = load_model(model)
    items = read_datalist(data, section, dataset_dir)
    judged = judge_all(network, items, where, samples, FACTORS)
    for row in report(judged, folder):
        print(" ".join(f"{key} {value}" for key, value in row.items()))
    if scale:
        print(f"{path}: uncertainty multiplied by {calibrate(network, judged, samples)}")
        write_weights(path, {k: v.cpu().half() for k, v in network.state_dict().items()})


def anatomy(data: str, output_dir: Path, dataset_dir: str) -> None:
    """Dice of the anatomy extractor on the reported subjects and on the MNI152 template."""
    from .anatomy_evaluation import evaluate_anatomy

    folder = prepare_output(output_dir)
    simulated, real = (read_datalist(data, s, dataset_dir) for s in ("reported_simulated", "reported"))
    evaluate_anatomy(load_anatomy(), simulated, real, folder)


def explain(path: str, output_dir: Path, model: str, **options: Any) -> None:
    """Write what each expert of a mixture does to a volume, and print how alike their changes are."""
    from .explain import explain as write_explanation
    from .networks.experts import EXPERTS

    chosen = parse_options(**options)
    volumes = find_volumes(path)
    if Path(path).is_dir():
        raise InputError(f"{path}: a folder; explain takes one volume, such as {volumes[0]}")
    network, weights = load_model(model)
    spacing, contrast, modality = (chosen[k] for k in ("target_spacing", "contrast", "modality"))
    network = network.to(memory_format=torch.channels_last_3d)
    report = write_explanation(
        str(volumes[0]), prepare_output(output_dir), network, weights, spacing, contrast, modality
    )
    for name, row in zip(EXPERTS, report["CorrelationOfDifferences"], strict=True):
        print(f"{name}: mean share {report['MeanShare'][name]:.2f}, correlation of its change with the others' {row}")
    print(f"written to {output_dir}")


def regions(
    data: str,
    output_dir: Path,
    networks: str,
    section: str,
    dataset_dir: str,
    modalities: Sequence[str],
    routing: float,
) -> None:
    """Write and print the tables of :mod:`bundle.region_evaluation`."""
    from .region_evaluation import evaluate_regions

    named = {name: load_super_resolver(weights) for name, weights in parse_networks(networks)}
    if not named:
        raise InputError("--networks is missing; allowed is NAME=FILE, several with commas between")
    items = read_datalist(data, section, dataset_dir)
    folder = prepare_output(output_dir)
    print(evaluate_regions(items, named, modalities, routing, folder))
