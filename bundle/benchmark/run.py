"""One run of everything: JSON, table and picture."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from ..compute import pick_device
from ..errors import InputError
from ..io import prepare_output, write_json
from .command import time_command
from .machine import describe, peaks
from .network import build, combinations, layers, measure
from .plot import plot

SIZES = ((192, 224, 192), (256, 320, 256), (512, 512, 320))
PARTS = ("network", "layers", "reference", "command", "seams", "simulation", "training")
BY_TILES = 50_000_000  # voxels above which a volume is measured in tiles, and the command given a limit of memory
LIMIT = ("--max_memory", "2GB")


def benchmark(
    folder: Path,
    sizes: Sequence[Sequence[int]] | None = None,
    model: str | None = None,
    parts: Sequence[str] = PARTS,
    repeats: int = 3,
    full: bool = False,
) -> dict:
    """Measure, print tables, write ``benchmark.json``, ``benchmark.md`` and, of network and command, ``benchmark.png``.

    Args:
        folder: for the three files.
        sizes: shapes of the result.
        model: name of another network in place of the student.
        parts: of :data:`PARTS`.
        repeats: calls, of which the fastest counts.
        full: every combination of network, steps and tiles at every size.

    Raises:
        InputError: an unknown part, or sizes that are no shapes.
    """
    sizes = _check(sizes or SIZES, parts)
    folder, device = prepare_output(folder), pick_device(None)
    networks = {None: build(model, device)}
    report: dict = {"machine": describe(device), "peaks": peaks(device, repeats), "rows": [], "commands": []}
    print(json.dumps({**report["machine"], **report["peaks"]}), flush=True)
    for index, size in enumerate(sizes if "network" in parts else ()):
        for combination in combinations(index == 0, math.prod(size) > BY_TILES, full):
            if combination[0] not in networks:
                networks[combination[0]] = build(combination[0], device)
            row = measure(networks, size, device, report["peaks"], combination, repeats)
            if row is not None:
                report["rows"].append(_told(row))
    if "layers" in parts:
        report["layers"] = layers(networks[None], sizes[0], device, report["peaks"])
    if "reference" in parts:
        from .reference import compare_step

        report["reference"] = _told(compare_step(networks[None], device, repeats=repeats))
    for size in sizes if "command" in parts and model is None else ():
        options, runs = (LIMIT, 1) if math.prod(size) > BY_TILES else ((), repeats)
        report["commands"].append(_told(time_command(size, options, runs)))
    _extras(report, parts, networks[None], device)
    report["machine"]["loadavg_after"] = describe(device)["loadavg"]
    write_json(folder / "benchmark.json", report)
    (folder / "benchmark.md").write_text(tables(report))
    if report["rows"] or report["commands"]:
        plot(folder / "benchmark.png", report["rows"], report["commands"], report.get("reference"))
    print(f"{tables(report)}\nwritten to {folder}")
    return report


def _extras(report: dict, parts: Sequence[str], network: object, device: object) -> None:
    from .extras import seams, simulation_speed

    if "seams" in parts:
        report["seams"] = seams(network, device)
    if "simulation" in parts:
        report["pair_voxels_per_s"] = simulation_speed()
    if "training" in parts:
        from .training import training

        report["training"] = training()


def tables(report: dict) -> str:
    """The report as Markdown."""
    parts = []
    commands = [{**c, **{f"{k} (cpu s)": v for k, v in c["stages_cpu_s"].items()}} for c in report["commands"]]
    told = {"Network": report["rows"], "Command": commands}
    told |= {title: report.get(title.lower(), []) for title in ("Layers", "Training")}
    for title, rows in told.items():
        if rows:
            names = [k for k in dict.fromkeys(k for row in rows for k in row) if not k.startswith("stages")]
            lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
            lines += [f"| {' | '.join(str(row.get(k, '')) for k in names)} |" for row in rows]
            parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    single = {k: v for k, v in report.items() if k in ("machine", "peaks", "reference", "seams", "pair_voxels_per_s")}
    return "\n".join([*parts, "## The rest\n", *(f"    {key}: {json.dumps(value)}" for key, value in single.items())])


def _told(row: dict) -> dict:
    print(" | ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def _check(sizes: Sequence[Sequence[int]], parts: Sequence[str]) -> list[tuple[int, ...]]:
    for part in parts:
        if part not in PARTS:
            raise InputError(f"--parts {part}: allowed are {', '.join(PARTS)}")
    try:
        sound = [tuple(int(n) for n in (d, h, w)) for d, h, w in sizes]
    except (TypeError, ValueError) as error:
        raise InputError(f"--sizes {sizes}: allowed is a list of shapes, such as [[192,224,192]]") from error
    if min(n for size in sound for n in size) < 32:
        raise InputError(f"--sizes {sizes}: every axis needs at least 32 voxels")
    return sound
