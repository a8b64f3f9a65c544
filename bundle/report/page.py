"""Writing the page."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

import jinja2
from torch import Tensor
from torch.nn import functional as F

from ..intensity import percentiles
from ..io import replacing, split_name
from .case import Case, make_case
from .checks import Row, consistency, range_warnings, trained_range
from .layers import make_layers, montage

_HERE = Path(__file__).parent
_TELLING = 6  # letters of a name: shorter ones are also parts of words
SCRIPTS = ("slices.js", "views.js", "controls.js")
PLANES = ("axial", "coronal", "sagittal")


def report_path(result: Path) -> Path:
    """Name of the page beside a result: ``<stem>_desc-superres_report.html``."""
    return result.with_name(f"{split_name(result)[0]}_report.html")


def write_report(path: Path, item: Mapping[Hashable, Any], pred: Tensor, sidecar: Mapping[str, Any]) -> None:
    """Write the page of one result, whole or not at all.

    The page is one file that loads nothing. It holds pictures and numbers, but no name, path or other text of the
    input; what its title shows is the name of the page's own file.

    Args:
        path: of the page, see :func:`report_path`.
        item: of the main job, see :func:`bundle.report.case.make_case`.
        pred: (C, D, H, W) MetaTensor in the axes of the file and the input's units: image, and uncertainty.
        sidecar: what stands beside the result.
    """
    facts = scrub(sidecar, str(item["path"]))
    content = render(make_case(item, pred), facts)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def render(case: Case, sidecar: Mapping[str, Any]) -> str:
    """The page as text."""
    ranges = trained_range(case, sidecar)
    layers = make_layers(case)
    return _template().render(
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script="\n".join((_HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        planes=PLANES,
        data={"layers": layers, "size": [s * n for s, n in zip(case.spacing, case.high.shape, strict=True)]},
        maps=[name for name in layers if "legend" in layers[name]],
        montage=montage(case),
        warnings=list(dict.fromkeys([*sidecar["Warnings"], *range_warnings(ranges)])),
        contrast=case.contrast,
        ranges=ranges,
        consistency=consistency(case),
        uncertainty=uncertainty_rows(case),
        geometry=geometry_rows(case, sidecar),
        options=sidecar["Options"],
        sidecar=sidecar,
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html")


def geometry_rows(case: Case, sidecar: Mapping[str, Any]) -> list[Row]:
    """Voxels of both volumes and how they relate."""
    sizes = [" x ".join(map(str, v.shape)) for v in (case.low, case.high)]
    voxels = [" x ".join(f"{s:.3g}" for s in spacing) + " mm" for spacing in (case.low_spacing, case.spacing)]
    return [
        Row("Input", voxels[0], f"{sizes[0]} voxels, from left to right, back to front, bottom to top"),
        Row("Result", voxels[1], f"{sizes[1]} voxels, in the same field of view"),
        Row("Contrast of the result", str(sidecar["Contrast"]), CONTRAST[case.contrast]),
    ]


CONTRAST = {
    "input": "The input's own.",
    "7T": "7 T-like: learnt from simulated pairs, not from 7 T scans, and compared with simulated truth only.",
}


def uncertainty_rows(case: Case) -> list[Row]:
    """What the map says of the head; nothing without a map."""
    if case.uncertainty is None or not case.mask.any():
        return []
    inside = F.interpolate(case.mask[None, None].float(), case.high.shape, mode="nearest-exact")[0, 0] > 0
    half, high = percentiles(case.uncertainty[inside], (50.0, 99.0))
    unit = case.intensity.scale
    return [
        Row("Median in the head", f"{half:.3g}", f"{100 * half / unit:.1f} % of bright tissue"),
        Row("1 % of voxels are above", f"{high:.3g}", f"{100 * high / unit:.1f} % of bright tissue"),
    ]


def scrub(value: Any, source: str) -> Any:
    """The value without the input's path and name, and with the names alone of other files."""
    if isinstance(value, Mapping):
        return {k: scrub(v, source) for k, v in value.items() if k != "Source"}
    if isinstance(value, list | tuple):
        return [scrub(v, source) for v in value]
    if not isinstance(value, str):
        return value
    stem = split_name(Path(source))[0]
    for name in (source, Path(source).name, *([stem] if len(stem) >= _TELLING else [])):
        value = value.replace(name, "the input")
    path = value.startswith(("/", "~", "./", "../")) or value[1:3] == ":\\"
    return PureWindowsPath(value).name if path else value  # of both kinds of separators
