"""The demo: a brain template is degraded, sharpened by the main job in both contrasts, and compared with the truth."""

import time
from pathlib import Path

import numpy as np
from torch import Tensor

from .errors import InputError
from .evaluation import Case, classical_methods, make_case, markdown, row_of
from .geometry import Grid, target_grid
from .io import prepare_output, read_volume, write_json, write_volume
from .job import enhance
from .report import report_path

FACTORS = (2, 2, 2)


def template_path() -> Path:
    """The MNI152 template at 1 mm that the package nilearn ships (Fonov et al., NeuroImage 2011).

    Raises:
        InputError: nilearn is not installed.
    """
    try:
        import nilearn.datasets
    except ImportError as error:
        raise InputError("the demo takes its brain from the package nilearn; run: pip install nilearn") from error
    return Path(nilearn.datasets.__file__).parent / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def demo(folder: Path) -> None:
    """Write ``input_T1w.nii.gz``, both results, ``demo.json``, ``demo.png`` and a report of the 7 T-like result.

    Prints the table, and last the path of the report.
    """
    folder = prepare_output(folder)
    case = make_case(template_path(), "A", FACTORS)._replace(name="MNI152")
    source = folder / "input_T1w.nii.gz"
    sharp = Grid(tuple(case.reference.shape), read_volume(template_path()).affine.numpy())
    grid = target_grid(sharp, [2.0, 2.0, 2.0])
    write_volume(source, case.low[0, 0].numpy(), grid.affine, (4, 4))
    print(f"{source}: MNI152 template at 2 mm with 1 % noise, {' x '.join(map(str, grid.shape))} voxels")
    images, rows = {}, []
    for name, method in classical_methods().items():
        start = time.perf_counter()
        images[name] = method(case)[0, 0]
        rows.append(row_of(case, name, images[name], time.perf_counter() - start))
    start = time.perf_counter()
    enhance(str(source), str(folder), contrast="input", overwrite=True)
    seconds = time.perf_counter() - start
    images["bundle"] = read_volume(folder / "input_T1w_desc-superres.nii.gz").as_tensor()[0]
    rows.append(row_of(case, "bundle", images["bundle"], seconds))
    maps = {"save_uncertainty": True, "save_tissue": True, "report": True}
    enhance(str(source), str(folder / "7T"), contrast="7T", overwrite=True, **maps)
    images["7T"] = read_volume(folder / "7T" / "input_T1w_desc-superres.nii.gz").as_tensor()[0]
    write_json(folder / "demo.json", {"rows": rows})
    draw(case, images, rows, folder / "demo.png")
    print("\n" + markdown(rows))
    print("\nThe bundle's seconds go from file to file. The table is of contrast input, for which there is a truth; 7T")
    print(f"is beside it in the picture, {folder / 'demo.png'}, and has a report to look through in a browser:")
    print(report_path(folder / "7T" / "input_T1w_desc-superres.nii.gz"))


def draw(case: Case, images: dict[str, Tensor], rows: list[dict], path: Path) -> None:
    """Picture of input, cubic, both results, truth and two errors: whole slices above, a detail below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    inside = case.mask.nonzero()
    box = tuple(slice(max(0, int(a) - 4), int(b) + 5) for a, b in zip(inside.amin(0), inside.amax(0), strict=True))
    reference = case.reference
    nearest = case.low[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    score = {row["method"]: f"{row['psnr']:.1f} dB" for row in rows}
    gray, heat = {"cmap": "gray", "vmin": 0, "vmax": 1}, {"cmap": "inferno", "vmin": 0, "vmax": 0.25}
    columns = [
        ("input, 2 mm", nearest, gray),
        (f"cubic, {score['cubic']}", images["cubic"], gray),
        (f"bundle, {score['bundle']}", images["bundle"], gray),
        ("bundle, 7 T-like", images["7T"], gray),
        ("reference, 1 mm", reference, gray),
        ("error of cubic", (images["cubic"] - reference).abs(), heat),
        ("error of bundle", (images["bundle"] - reference).abs(), heat),
    ]
    # slices of the cropped template, and corner and size of the detail: occipital cortex, hippocampus, cerebellum
    views = [
        (lambda v: v[:, :, 98].T, (38, 2, 52, 52)),
        (lambda v: v[:, 83, :].T, (76, 30, 52, 52)),
        (lambda v: v[90, :, :].T, (7, 20, 52, 52)),
    ]
    figure, axes = plt.subplots(6, 7, figsize=(17.5, 16.2), facecolor="black", height_ratios=[1.2, 1] * 3)
    for row, (cut, (x, y, w, h)) in enumerate(views):
        for column, (title, volume, style) in enumerate(columns):
            plane = np.asarray(cut(volume[box]))
            whole, detail = axes[2 * row, column], axes[2 * row + 1, column]
            whole.imshow(plane, origin="lower", **style)
            whole.add_patch(Rectangle((x, y), w, h, fill=False, color="deepskyblue", linewidth=0.8))
            detail.imshow(plane[y : y + h, x : x + w], origin="lower", interpolation="nearest", **style)
            if row == 0:
                whole.set_title(title, color="white", fontsize=12)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.97, 0.02, 0.02)
    figure.savefig(path, dpi=80, facecolor="black")
    plt.close(figure)
