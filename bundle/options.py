"""The one table of what a user can choose, for both commands, the configs and the documentation."""

import difflib
import inspect
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow


class Option(NamedTuple):
    """A named choice: its default, how a given value is read, and what it does."""

    default: Any
    read: Callable[[str, Any], Any]
    help: str


def _fail(name: str, value: Any, allowed: str) -> InputError:
    return InputError(f"--{name} {value!r}: allowed is {allowed}")


def _choice(*allowed: str) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if str(value) not in allowed:
            raise _fail(name, value, " or ".join(allowed))
        return str(value)

    return read


def read_boolean(name: str, value: Any) -> bool:
    """``true`` or ``false`` and nothing else; the command line hands over text."""
    if str(value).lower() not in ("true", "false"):
        raise _fail(name, value, "true or false")
    return str(value).lower() == "true"


def read_number(low: float, high: float, whole: bool = False) -> Callable[[str, Any], float | int]:
    """Reader of a number, or a whole one, from ``low`` to ``high``."""
    kind = "whole number" if whole else "number"

    def read(name: str, value: Any) -> float | int:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not low <= number <= high or (whole and number != int(number)):
            raise _fail(name, value, f"a {kind} from {low:g} to {high:g}")
        return int(number) if whole else number

    return read


def _spacing(name: str, value: Any) -> tuple[float, float, float] | None:
    """One voxel size in mm, or three; given as a number, a list, or text that looks like one."""
    allowed = "one number or three, in mm, from 0.1 to 15, such as [0.5,0.5,0.5]"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _fail(name, value, allowed) from error
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and 0.1 <= v <= 15 for v in values)
    if len(values) != 3 or not numeric:
        raise _fail(name, value, allowed)
    return tuple(float(v) for v in values)


def _memory(name: str, value: Any) -> int:
    """Bytes, or text such as 4GB."""
    text = str(value).strip().upper().removesuffix("B")
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    try:
        size = float(text.rstrip("KMG")) * unit
    except ValueError:
        size = 0
    if not 64 * 2**20 <= size < math.inf:
        raise _fail(name, value, "a size of at least 64MB, such as 4GB")
    return int(size)


def _pattern(pattern: str, allowed: str) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _fail(name, value, allowed)
        return value

    return read


def _text(name: str, value: Any) -> str:
    """Text that a config takes for nothing else."""
    if not re.fullmatch(r"[^$@%#][^#]*", str(value), re.DOTALL):
        raise _fail(name, value, "text without #, that does not begin with $, @ or %")
    return str(value)


OPTIONS: dict[str, Option] = {
    "target_spacing": Option(
        None,
        _spacing,
        "voxel size of the result in mm, one number or three along the axes of the file; default: half the input's, or "
        "isotropic at the finest axis for thick slices, never below 0.4",
    ),
    "contrast": Option(
        "7T",
        _choice("7T", "input"),
        "of the result: 7 T-like, as learnt from simulated pairs, or the input's own; volumes that are neither T1w nor "
        "T2w keep their own",
    ),
    "modality": Option(
        "auto",
        _choice("auto", "T1w", "T2w", "other"),
        "of the input; auto reads the file name, then the histogram",
    ),
    "device": Option(
        None, _pattern(r"cpu|cuda(:\d+)?", "cpu, cuda or cuda:N"), "cpu, cuda or cuda:N; default: cuda if there is one"
    ),
    "samples": Option(
        1,
        read_number(1, 1000, whole=True),
        "volumes to draw; above 1 the result is their mean, and their spread is saved as uncertainty map",
    ),
    "seed": Option(0, read_number(0, 2**31, whole=True), "of the random numbers of the samples"),
    "temperature": Option(
        None,
        read_number(0, 1),
        "0: the mean, in one step; 1: samples; default 0, or 1 when samples > 1",
    ),
    "steps": Option(
        None,
        read_number(1, 1000, whole=True),
        "denoising steps of a sample; default 1, or 4 when temperature > 0",
    ),
    "max_memory": Option(
        None,
        _memory,
        "of the network's activations, such as 4GB; default 80 % of what is free; the volume is cut into tiles to fit",
    ),
    "save_uncertainty": Option(
        False,
        read_boolean,
        "write the uncertainty map that the network predicts in the same step; with samples it is their spread, and "
        "always written",
    ),
    "save_tissue": Option(
        False,
        read_boolean,
        "write a map of tissue too, as the anatomy extractor sees it; what its numbers mean stands in the sidecar",
    ),
    "report": Option(
        False,
        read_boolean,
        "write an HTML page beside the result: input and result side by side, maps, agreement with the input, warnings",
    ),
    "series": Option(
        "all",
        _text,
        "which scans to do: of DICOM a series by UID, number or description, of BIDS those with entities such as "
        "sub-01_ses-2_T1w, of a datalist one section",
    ),
    "dataset_dir": Option(
        None, _text, "folder that the paths of a datalist are relative to and may not leave; default: the list's own"
    ),
    "dicom": Option(False, read_boolean, "write the result as a DICOM series too; for DICOM inputs"),
    "bias_correction": Option(
        False, read_boolean, "divide the volume by its shading first, as N4 estimates it; the result has none then"
    ),
    "gradient_coefficients": Option(
        None,
        _text,
        "file of the gradient coil's coefficients (Siemens .grad), to undo its distortion; not done where ImageType "
        "says DIS2D or DIS3D",
    ),
    "force_unwarp": Option(False, read_boolean, "undo the distortion whatever ImageType says"),
    "overwrite": Option(False, read_boolean, "make results again that are there already"),
    "on_error": Option("continue", _choice("continue", "stop"), "what a refused volume does to the rest of a folder"),
    "workers": Option(
        0,
        read_number(0, 256, whole=True),
        "local processes that share a folder's volumes, by Dask; 0: one after the other in this process",
    ),
    "scheduler": Option(
        None,
        _pattern(
            r"(tcp|tls|ucx|ws|wss)://[\w.:\[\]-]+|[\w./~-][^$%@#]*\.json", "tcp://HOST:PORT or a scheduler file .json"
        ),
        "address, or scheduler file, of a Dask cluster that works through the folder",
    ),
    "check_weights": Option(
        True, read_boolean, "refuse weights that came with the bundle but are not as they were shipped"
    ),
}


def parse_options(**given: Any) -> dict[str, Any]:
    """All options, read strictly; None stands for the default.

    Raises:
        InputError: an option that is not in the table (with the nearest that is), or a value that is not allowed.
    """
    for name in given:
        if name not in OPTIONS:
            raise InputError(f"--{name}: no such option{nearest(name, OPTIONS)}")
    options = {}
    for name, option in OPTIONS.items():
        value = given.get(name)
        options[name] = option.default if value is None else option.read(name, value)
    if options["workers"] and options["scheduler"]:
        raise InputError("--workers and --scheduler: choose one, processes of this machine or a cluster")
    if options["temperature"] is None:
        options["temperature"] = 1.0 if options["samples"] > 1 else 0.0
    if options["samples"] > 1 and options["temperature"] == 0:
        raise InputError(
            f"--samples {options['samples']} --temperature 0: samples differ only at a temperature above 0"
        )
    if options["steps"] is None:
        options["steps"] = 4 if options["temperature"] > 0 else 1
    if options["temperature"] > 0 and options["steps"] < 2:
        raise InputError(
            f"--steps {options['steps']}: one step gives the mean whatever the noise; samples need 2 or more"
        )
    if options["force_unwarp"] and options["gradient_coefficients"] is None:
        raise InputError("--force_unwarp true: there is nothing to unwarp with; name --gradient_coefficients FILE too")
    if options["temperature"] == 0 and options["steps"] > 1:
        raise InputError(
            f"--steps {options['steps']} --temperature 0: temperature 0 is one step; raise the temperature"
        )
    return options


def nearest(name: str, known: Any) -> str:
    """`` (did you mean X?)``, or the list of what is known."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else f"; known are {', '.join(sorted(known))}"


_OVERLAYS = {
    "inference.json": ("model_*.json", "inference_*.json", "evaluate.json"),
    "train.json": (
        *("train_*.json", "distill*.json", "adapt.json", "ablation*.json"),
        *("pool.json", "heads.json", "smoke.json", "multi_gpu.json"),
    ),
}  # by base
# what `monai.bundle run --tracking` puts into a config
_TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir")


def check(base: str, bundle_root: str) -> None:
    """Refuse a config with unknown top-level keys, and bad options of an inference: one line, exit status 1.

    The first entry of every base config's ``initialize``. MONAI takes any ``--name value`` and adds it to the config,
    so a misspelt option would change nothing, in silence.

    Args:
        base: file name of the base config, whose keys, with those of all overlays beside it, are the known ones.
            Keys that begin with an underscore are free for users.
        bundle_root: folder that holds ``configs``.
    """
    from .tracking import name_saved_config

    workflow = surrounding_workflow()
    if workflow is None:  # read by something that takes single parts of a config
        return
    if not (Path(bundle_root) / "configs" / base).is_file():
        raise SystemExit(f"error: {bundle_root}: no configs/{base} here; set --bundle_root to the folder of the bundle")
    known = set(_TRACKING)
    for pattern in (base, *_OVERLAYS[base]):
        for path in (Path(bundle_root) / "configs").glob(pattern):
            known |= set(json.loads(path.read_text()))
    try:
        config = workflow.parser.config
        for key in config:
            if key not in known and not key.startswith("_"):
                raise InputError(f"--{key}: not a key of configs/{base}{nearest(key, known)}")
        name_saved_config(workflow.parser)
        if base == "inference.json":
            parse_options(**{name: config.get(name) for name in OPTIONS})
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def surrounding_workflow() -> "ConfigWorkflow | None":
    """The workflow that this is called from; None where there is none.

    An expression in a config is told nothing of the config around it, so the workflow is found on the call stack.
    """
    from monai.bundle import ConfigWorkflow  # here, so that the list of options is instant

    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigWorkflow):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]
