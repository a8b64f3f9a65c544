"""Ablations: the same small network trained with and without a part, for equal processor time, over several seeds.

What is compared stands in configs: ``configs/ablation.json`` holds arms, seeds and budget, ``ablation_NAME.json``
beside it which pairs of arms answer the question NAME.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from ..errors import InputError
from ..io import write_json

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ("prior", "modulation", "distillation", "regression", "experts", "guidance", "latent", "voxels")


def read_plan(studies: Sequence[str] = STUDIES, **given: Any) -> dict:
    """Arms, seeds and budget of ``configs/ablation.json``, with what is given in their place, and the pairs.

    Args:
        studies: names of :data:`STUDIES`.
        given: ``cpu_minutes``, ``seeds`` or other entries; None leaves what the config says.

    Raises:
        InputError: an unknown study.
    """
    plan = json.loads((ROOT / "configs" / "ablation.json").read_text())
    plan |= {name: value for name, value in given.items() if value is not None}
    plan["compare"] = {}
    for study in studies:
        if study not in STUDIES:
            raise InputError(f"--studies {study!r}: allowed are {', '.join(STUDIES)}")
        overlay = json.loads((ROOT / "configs" / f"ablation_{study}.json").read_text())
        plan["compare"][study] = [tuple(pair) for pair in overlay["compare"]]
    return plan


def arms_of(plan: Mapping) -> list[str]:
    """Arms that the pairs of a plan name (up to a comma, what they are given), in the plan's order."""
    named = {arm.split(", ")[0] for pairs in plan["compare"].values() for pair in pairs for arm in pair}
    return [arm for arm in plan["arms"] if arm in named]


def train_all(plan: Mapping, folder: Path, dataset_dir: str, datalist: str) -> list[dict]:
    """Train every arm with every seed, all arms of one seed before the next; runs that are done are left alone.

    Returns:
        What is known of every run: arm, seed, steps, seconds, parameters, file of weights.
    """
    return [
        train_arm(plan, arm, seed, folder, dataset_dir, datalist) for seed in plan["seeds"] for arm in arms_of(plan)
    ]


def train_arm(plan: Mapping, arm: str, seed: int, folder: Path, dataset_dir: str, datalist: str) -> dict:
    """Train one arm with one seed, in ``folder/ARM-SEED``; a killed run goes on, one that is done is read.

    Raises:
        InputError: the folder holds a run of another budget.
    """
    place = folder / f"{arm}-{seed}"
    record, definition = place / "run.json", plan["arms"][arm]
    if record.exists():
        done = json.loads(record.read_text())
        if done["cpu_minutes"] != plan["cpu_minutes"] or done["definition"] != definition:
            now = f"{plan['cpu_minutes']} minutes of {definition}"
            raise InputError(f"{record}: made with another budget or arm than {now}; choose another folder")
        return done
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    overlays = ["train.json", "pool.json", "ablation.json", *definition.get("overlays", [])]
    began = time.time()
    workflow = ConfigWorkflow(
        config_file=[str(ROOT / "configs" / name) for name in overlays],
        workflow_type="train",
        logging_file=False,
        **{"bundle_root": str(ROOT), "dataset_dir": dataset_dir, "datalist": datalist, "output_dir": str(place)},
        **{"seed": seed, "cpu_minutes": plan["cpu_minutes"], **definition.get("set", {})},
        **{name: plan[name] for name in ("pool_size", "epoch_length") if name in plan},
    )
    workflow.initialize()
    workflow.run()
    budget, network = (workflow.parser.get_parsed_content(k) for k in ("train#handlers#1", "network"))
    workflow.finalize()
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    all_of_it = sum(p.numel() for p in network.parameters())
    done = {"arm": arm, "seed": seed, "steps": budget.steps, "cpu_seconds": round(budget.spent, 1)}
    done |= {"wall_seconds": round(time.time() - began, 1), "trained": trained, "parameters": all_of_it}
    done |= {"cpu_minutes": plan["cpu_minutes"], "definition": definition, "weights": str(place / "model.pt")}
    write_json(record, done)
    return done
