"""What the ablations show: tables with mean and range over seeds, and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ..compute import pick_device
from ..data import check_files, read_datalist
from ..errors import InputError
from ..evaluation import classical_methods, compare, network_method, write_csv
from ..guided_evaluation import make_guided_case, rows_of
from ..io import prepare_output, write_json
from ..job import load_model
from ..networks.weights import load_super_resolver
from . import learned_latent, voxel_diffusion
from .ablation import ROOT, read_plan, train_all
from .seed_experiments import latency, run_seed_experiments, seed_settings

SCALES = ("volume", "seed")
GUIDED = "train_guided.json"  # the overlay of runs on strongly shaded and distorted scans
METRICS = ("psnr", "ssim", "gradient", "high_frequency", "histogram")
SEED_PAIRS = {
    "prior": ("baseline", "with prior"),
    "modulation": ("without modulation", "with modulation"),
    "distillation": ("student alone", "student distilled"),
}


def ablate(
    folder: Path,
    studies: Sequence[str],
    scale: str,
    dataset_dir: str,
    datalist: str | None = None,
    cpu_minutes: float | None = None,
    seeds: Sequence[int] | None = None,
) -> None:
    """Train what is not trained yet, measure it, write tables and figures, and print what every part changes.

    Args:
        folder: of runs and results.
        studies: names, see :data:`bundle.studies.ablation.STUDIES`.
        scale: one of :data:`SCALES`.
        dataset_dir: of the data, at scale ``volume``.
        datalist: default ``configs/datalist.json``.
        cpu_minutes: of a run, at scale ``volume``.
        seeds: of the runs, at scale ``volume``.
    """
    if scale not in SCALES:
        raise InputError(f"--scale {scale!r}: allowed are {', '.join(SCALES)}")
    plan = read_plan(studies, cpu_minutes=cpu_minutes, seeds=seeds)
    if scale == "seed":
        asked = [study for study in studies if study in SEED_PAIRS]
        if not asked:
            raise InputError(f"--studies {','.join(studies)}: at --scale seed there are {', '.join(SEED_PAIRS)}")
        at_seed_scale(prepare_output(folder), asked)
        return
    lists = datalist or str(ROOT / "configs" / "datalist.json")
    measured = {kind: read_datalist(lists, m["section"], dataset_dir) for kind, m in plan["measured"].items()}
    check_files(item for items in measured.values() for item in items)
    folder = prepare_output(folder)
    runs = train_all(plan, folder, dataset_dir, lists)
    rows = measure(runs, plan, measured)
    write_csv(rows, folder / "ablation_rows.csv")
    table = [*summarise(rows, runs), *(d for study in plan["compare"] for d in differences(rows, plan, study))]
    write_csv(table, folder / "ablation.csv")
    costs = [{**run, **cost} for run, cost in zip(runs, map(cost_of, runs), strict=True)]
    write_json(folder / "ablation.json", {"runs": costs, "rows": rows, "table": table})
    for row in table:
        print(" ".join(f"{k} {v}" for k, v in row.items()))


def measure(runs: Sequence[Mapping], plan: Mapping, items: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """One row per run and case, of kind ``real`` or ``simulated``; and of cubic, and of the bundle as it is shipped.

    Runs on strongly shaded and distorted scans are measured on such: see :func:`measure_guided`; those beside diffusion
    on voxels on cubes of sharp volumes: see :func:`bundle.studies.voxel_diffusion.measure_voxels`. Of a learned latent
    itself the limit is measured: see :func:`bundle.studies.learned_latent.limit_method`.
    """
    guided = [run for run in runs if GUIDED in run["definition"].get("overlays", ())]
    voxels = [run for run in runs if run["arm"] in voxel_diffusion.ARMS]
    plain = [run for run in runs if run not in [*guided, *voxels]]
    rows = measure_plain(plain, plan, items) if plain else []
    rows += measure_guided(guided, items) if guided else []
    return rows + (voxel_diffusion.measure_voxels(voxels, items["real"], METRICS) if voxels else [])


def measure_guided(runs: Sequence[Mapping], items: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """Rows of :func:`bundle.guided_evaluation.rows_of`, protocol A and factor 2; arms are named ``ARM, VIEW``."""
    networks = {f"{run['arm']}-{run['seed']}": load_super_resolver(run["weights"]) for run in runs}
    rows = []
    for kind, own in items.items():
        for row in (row for item in own for row in rows_of(make_guided_case(item, "A", (2, 2, 2)), networks)):
            name, view = row["method"].split(", ")
            arm, _, seed = name.partition("-")
            rows.append({"kind": kind, "arm": f"{arm}, {view}", "seed": int(seed or 0), **row})
    return rows


def measure_plain(runs: Sequence[Mapping], plan: Mapping, items: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """Rows of :func:`bundle.evaluation.compare`, protocol A and the factors of the plan."""
    methods, device = {"cubic": classical_methods()["cubic"]}, pick_device(None)
    names = {}
    for run in runs:
        key, arm = f"{run['arm']}-{run['seed']}", run["arm"]
        if _is_latent(run):
            methods[key], arm = learned_latent.limit_method(run["weights"], device), f"{arm}, limit"
        else:
            methods[key] = network_method(load_super_resolver(run["weights"]), device)
        names[key] = arm, run["seed"]
    methods["bundle"] = network_method(load_model()[0], device)
    rows = []
    for kind, own in items.items():
        for row in compare(own, methods, ["A"], plan["measured"][kind]["factors"], metrics=METRICS):
            arm, seed = names.get(row["method"], (row["method"], 0))
            rows.append({"kind": kind, "arm": arm, "seed": seed, **row})
    return rows


def _is_latent(run: Mapping) -> bool:
    return learned_latent.OVERLAY in run["definition"].get("overlays", ())


def _mean(rows: Sequence[Mapping], kind: str, arm: str, seed: int, metric: str) -> float:
    """Mean over the cases of one run."""
    found = [r[metric] for r in rows if (r["kind"], r["arm"], r["seed"]) == (kind, arm, seed)]
    return float(np.mean(found)) if found else float("nan")


def _spread(values: Sequence[float]) -> str:
    """``mean (least to most)``."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def summarise(rows: Sequence[Mapping], runs: Sequence[Mapping]) -> list[dict]:
    """One row per kind and arm: mean and range over the seeds of the mean over cases, and the steps."""
    table = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        for arm in dict.fromkeys(r["arm"] for r in rows if r["kind"] == kind):
            seeds = sorted({r["seed"] for r in rows if (r["kind"], r["arm"]) == (kind, arm)})
            steps = [run["steps"] for run in runs if run["arm"] == arm.split(", ")[0]]
            row = {"kind": kind, "arm": arm, "seeds": len(seeds), "steps": _spread(steps) if steps else ""}
            for metric in METRICS:
                row[metric] = _spread([_mean(rows, kind, arm, seed, metric) for seed in seeds])
            table.append(row)
    return table


def differences(rows: Sequence[Mapping], plan: Mapping, study: str) -> list[dict]:
    """What a part changes: per kind and pair of arms, mean and range over seeds of the difference of means."""
    table = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        for before, after in plan["compare"][study]:
            seeds = sorted({r["seed"] for r in rows if (r["kind"], r["arm"]) == (kind, after)})
            if not seeds:
                continue
            row = {"kind": kind, "arm": f"{after} minus {before}", "seeds": len(seeds)}
            for m in METRICS:
                changes = [_mean(rows, kind, after, s, m) - _mean(rows, kind, before, s, m) for s in seeds]
                row[m] = _spread(changes)
            table.append(row)
    return table


def cost_of(run: Mapping) -> dict:
    """Processor seconds of the run's network for a made-up volume of 96^3, one thread, fp32, best of three.

    Those of a network on voxels are in ``python -m bundle benchmark``; a latent alone has none.
    """
    if run["arm"] == "voxels" or _is_latent(run):
        return {}
    milliseconds = latency(load_super_resolver(run["weights"]), torch.rand(1, 1, 96, 96, 96), repeats=3)
    return {"network_seconds": round(milliseconds / 1000, 4)}


def at_seed_scale(folder: Path, studies: Sequence[str]) -> None:
    """The paper's experiments: ``seed.csv``, ``seed.json``, ``figure1.png`` and ``figure2.png``; prints the table.

    They are written after every seed, so that a long run shows something early.
    """
    settings = seed_settings()

    def write(rows: list[dict], kept: dict) -> None:
        table = seed_table(rows, studies)
        write_csv(rows, folder / "seed.csv")
        write_csv(table, folder / "seed_table.csv")
        write_json(folder / "seed.json", {"settings": settings, "rows": rows, "table": table})
        figure1(kept).savefig(folder / "figure1.png", dpi=110)
        figure2(kept).savefig(folder / "figure2.png", dpi=110)

    rows, _ = run_seed_experiments(folder, settings, write)
    for row in seed_table(rows, studies):
        print(" ".join(f"{k} {v}" for k, v in row.items()))


def seed_table(rows: Sequence[Mapping], studies: Sequence[str]) -> list[dict]:
    """Per study both arms and their difference: mean and range over the seeds."""
    table = []
    for study in studies:
        pairs = [[r for r in rows if r["arm"] == arm] for arm in SEED_PAIRS[study]]
        before, after = SEED_PAIRS[study]
        table += [
            {"study": study, "arm": arm, **_over_seeds(own)} for arm, own in zip((before, after), pairs, strict=True)
        ]
        change = [{k: b[k] - a[k] for k in _numbers(a)} for a, b in zip(*pairs, strict=True)]
        table.append({"study": study, "arm": f"{after} minus {before}", **_over_seeds(change)})
    return table


def _numbers(row: Mapping) -> list[str]:
    return [k for k, v in row.items() if isinstance(v, int | float) and k != "seed"]


def _over_seeds(rows: Sequence[Mapping]) -> dict[str, Any]:
    return {k: _spread([r[k] for r in rows]) for k in _numbers(rows[0])}


def figure1(kept: Mapping) -> Figure:
    """The paper's figure 1: training loss with the anatomical prior (blue) and without (orange)."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for arm, colour in (("with prior", "tab:blue"), ("baseline", "tab:orange")):
        losses = np.array(kept[arm]["losses"])
        smooth = np.convolve(losses, np.ones(5) / 5, mode="valid")
        axes.plot(losses, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(np.arange(len(smooth)) + 2, smooth, color=colour, label=f"{arm}, last tenth {_last(losses):.4f}")
    axes.set(
        xlabel="step of the one epoch", ylabel="L1 loss", yscale="log", title="Training loss (figure 1 of the paper)"
    )
    axes.legend(frameon=False)
    return figure


def _last(losses: np.ndarray) -> float:
    return float(losses[-max(1, len(losses) // 10) :].mean())


def figure2(kept: Mapping) -> Figure:
    """The paper's figure 2: histograms of generated images (blue) and of the 7 T target (orange)."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, arm in zip(panels, ("with modulation", "without modulation"), strict=True):
        truth, found = kept[arm]["truth"], kept[arm]["result"]
        mask = truth > 0.05
        edges = np.linspace(0, float(truth.max()), 61)
        for values, colour, label in ((found, "tab:blue", "generated"), (truth, "tab:orange", "7 T target")):
            panel.hist(values[mask].numpy(), edges, color=colour, alpha=0.55, label=label, density=True)
        panel.set(title=f"{arm}", xlabel="normalised intensity")
    panels[0].set_ylabel("density inside the head")
    panels[0].legend(frameon=False)
    return figure
