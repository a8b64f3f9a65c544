"""The work of the 3D Slicer module: one volume in, one or more out, progress on standard output."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..errors import InputError
from ..io import RESULT, TISSUE, UNCERTAINTY, prepare_output
from ..job import enhance_watched

NAME = "Brain MRI super-resolution"
# share of the work that is done when an event comes, roughly: Slicer shows a bar, not a clock
STAGES = {
    Events.GET_BATCH_COMPLETED: ("network", 0.15),
    IterationEvents.FORWARD_COMPLETED: ("back to the scan's axes and units", 0.75),
    Events.ITERATION_COMPLETED: ("saving", 0.9),
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Arguments as Slicer gives them; ``--returnparameterfile`` and the like, which it may add, are taken and left."""
    parser = argparse.ArgumentParser(prog="BrainSuperResolution", description=NAME, allow_abbrev=False)
    parser.add_argument("input", type=Path, help="volume: NRRD, NIfTI or MHA")
    parser.add_argument("output", type=Path, help="volume to write")
    parser.add_argument("--uncertainty", type=Path, help="map to write")
    parser.add_argument("--tissue", type=Path, help="map to write")
    parser.add_argument("--contrast", default="7T")
    parser.add_argument("--modality", default="auto")
    parser.add_argument("--spacing", type=float, default=0.0, help="mm; 0 for the default")
    parser.add_argument("--max_memory", default="")
    parser.add_argument("--device", default="")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)
    parser.add_argument("--processinformationaddress", help=argparse.SUPPRESS)
    return parser.parse_args(list(words))


def progress(share: float, comment: str = "") -> None:
    """Tell Slicer how much is done, 0 to 1, and what comes next."""
    if comment:
        print(f"<filter-comment>{comment}</filter-comment>")
    print(f"<filter-progress>{share:g}</filter-progress>", flush=True)


def watch(engine: Engine) -> None:
    """Attach progress to the engine of the main job."""
    for event, (comment, share) in STAGES.items():
        engine.add_event_handler(event, lambda comment=comment, share=share: progress(share, comment))


def convert(folder: Path, part: str, target: Path) -> None:
    """Write the result of a kind in the format that the name of ``target`` says, or nothing at all."""
    (source,) = folder.glob(f"*{part}*.nii.gz")
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        sitk.WriteImage(sitk.ReadImage(str(source)), str(temporary), useCompression=False)
        os.replace(temporary, target)
    except RuntimeError as error:
        raise InputError(f"{target}: cannot be written ({str(error).splitlines()[-1]})") from error
    finally:
        temporary.unlink(missing_ok=True)


def run(given: argparse.Namespace) -> None:
    """Sharpen ``given.input`` and write what was asked for.

    Raises:
        InputError: a refused option, or an output that cannot be written.
        SystemExit: a refused volume.
    """
    wanted = {RESULT: given.output, UNCERTAINTY: given.uncertainty, TISSUE: given.tissue}
    wanted = {part: path for part, path in wanted.items() if path is not None}
    for path in wanted.values():
        prepare_output(path.parent)
    options = {
        "contrast": given.contrast,
        "modality": given.modality,
        "target_spacing": given.spacing or None,
        "max_memory": given.max_memory or None,
        "device": given.device or None,
        "save_uncertainty": UNCERTAINTY in wanted,
        "save_tissue": TISSUE in wanted,
    }
    with tempfile.TemporaryDirectory(prefix="brain-superres-") as folder:
        progress(0.02, "reading")
        enhance_watched(str(given.input), folder, watch, **options)
        for part, path in reversed(wanted.items()):  # the volume last, so that it means "done"
            convert(Path(folder), part, path)


def main(words: Sequence[str]) -> int:
    """Entry point; a refused input is one line on standard error and exit status 1."""
    given, began = parse(words), time.monotonic()
    print(f"<filter-start>\n<filter-name>{NAME}</filter-name>\n</filter-start>", flush=True)
    try:
        run(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    progress(1.0)
    print(f"<filter-end>\n<filter-name>{NAME}</filter-name>")
    print(f"<filter-time>{time.monotonic() - began:.1f}</filter-time>\n</filter-end>", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
