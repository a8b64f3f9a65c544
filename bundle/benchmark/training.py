"""Training: how many examples a second are made, learnt from, and both at once with workers beside."""

import json
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from monai.bundle import ConfigWorkflow

from ..io import write_volume
from ..job import ROOT
from ..simulate import simulate
from ..simulation.phantom import brain_phantom

STEPS = 6  # per row, after one that warms up
ITEMS = {"sharp": "high_T1w.nii.gz", "label_map": "labels.nii.gz"}


def training(steps: int = STEPS) -> list[dict]:
    """Rows with examples a second, on a phantom as sharp volume and as label map, by ``configs/train.json``.

    By the clock, since workers are processes of their own: measure on an idle machine.

    Args:
        steps: of every row.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_data(folder)
        kinds = {"sharp volumes": ("sharp",), "label maps": ("label_map",), "a whole head": ("label_map", "heads.json")}
        rows = [_row(f"data: crops of {kind}", _rate(_workflow(folder, *how), steps)) for kind, how in kinds.items()]
        rows += _steps_alone(folder, steps)
        for workers in sorted({0, 1, os.cpu_count() or 1}):
            rate, waited = _together(_workflow(folder, workers=workers), steps)
            row = _row(f"both: half of either, {workers} worker{'s' * (workers != 1)} beside", rate)
            rows.append({**row, "waited_for_data": round(waited, 3)})
        return rows


def _row(what: str, rate: float) -> dict:
    return {"what": what, "examples_per_s": round(rate, 2)}


def _make_data(folder: Path) -> None:
    """A phantom's label map, a sharp volume of it, and the datalist of both."""
    write_volume(folder / ITEMS["label_map"], brain_phantom().numpy().astype(np.float32), np.eye(4), (1, 1))
    simulate("phantom", str(folder / "pair"), "T1w", 1.5, 7.0, (2, 2, 2), 0)
    sharp = next((folder / "pair").rglob("*_desc-high*.nii.gz"))
    sharp.rename(folder / ITEMS["sharp"])
    items = {kind: {"image": file, "kind": kind, "modality": "T1w"} for kind, file in ITEMS.items()}
    lists = {kind: {"training": [item], "validation": [items["sharp"]]} for kind, item in items.items()}
    lists["all"] = {"training": list(items.values()), "validation": [items["sharp"]]}
    for kind, content in lists.items():
        (folder / f"{kind}.json").write_text(json.dumps(content))


def _workflow(folder: Path, kind: str = "all", *overlays: str, workers: int = 0) -> ConfigWorkflow:
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    places = {"bundle_root": str(ROOT), "dataset_dir": str(folder), "output_dir": str(folder / "run")}
    workflow = ConfigWorkflow(
        config_file=[str(ROOT / "configs" / name) for name in ("train.json", *overlays)],
        workflow_type="train",
        logging_file=False,
        datalist=str(folder / f"{kind}.json"),
        num_workers=workers,
        label_map_share=0.5 if kind == "all" else None,
        **places,
        **({"head_count": 1, "head_share": 1.0} if overlays else {}),
    )
    workflow.initialize()
    return workflow


def _rate(workflow: ConfigWorkflow, steps: int) -> float:
    """Examples a second that its loader gives, after the first batch."""
    batches = iter(workflow.parser.get_parsed_content("train#dataloader"))
    size, began = len(next(batches)["image"]), time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * size / (time.perf_counter() - began)


def _steps_alone(folder: Path, steps: int) -> list[dict]:
    """The network's part, on one batch again and again: precisions, accumulation and recomputation."""
    workflow = _workflow(folder)
    get = workflow.parser.get_parsed_content
    trainer, step = get("train#trainer"), get("train#trainer#iteration_update")
    batch, rows = next(iter(get("train#dataloader"))), []
    for what, settings in (
        ("bf16 where it is fast", {}),
        ("fp32", {"amp": False}),
        ("accumulated over 4 parts", {"amp": True, "accumulate": 4}),
        ("blocks computed again", {"accumulate": 1, "recompute": True}),  # last: it cannot be undone
    ):
        for name, value in settings.items():
            setattr(step, name, value)
        step(trainer, batch)
        began = time.perf_counter()
        for _ in range(steps):
            step(trainer, batch)
        rows.append(_row(f"network: {what}", steps * len(batch["image"]) / (time.perf_counter() - began)))
    return rows


def _together(workflow: ConfigWorkflow, steps: int) -> tuple[float, float]:
    """Examples a second of steps that wait for their data, and the share of the time that they waited."""
    get = workflow.parser.get_parsed_content
    trainer, step = get("train#trainer"), get("train#trainer#iteration_update")
    batches, waited = iter(get("train#dataloader")), 0.0
    step(trainer, next(batches))
    began = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(trainer, batch)
    total = time.perf_counter() - began
    return steps * len(batch["image"]) / total, waited / total
