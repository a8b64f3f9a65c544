"""The commands that the documentation shows, and what stands in for a user's files when they are tried."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from data import ROOT, head, phantom_map, save

from bundle.simulate import simulate

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DATA = '{[<"|-*'  # what an indented block that is no command begins with
OTHER_LANGUAGES = ("json", "python", "text", "yaml", "bibtex", "html", "xml", "js")  # of fenced blocks

# Commands that no test can run here, by how they begin, and why. Their options are checked where they are the bundle's.
NOT_HERE = {
    "make": "installs into .venv; .ci/run does it",
    "python3 -m venv": "makes an environment",
    ". .venv": "enters an environment",
    "pip": "installs packages",
    "python -m bundle benchmark": "measures this machine, for minutes",
    "tensorboard": "a server",
    "python -m bundle ablate": "trains, for minutes to hours; tests/test_studies_ablation.py trains small arms",
    "python -m bundle reproduce": "an hour, on data that are not here",
    "python -m bundle hallucination": "needs a real brain with flat places",
    "python -m bundle morphometry": "needs a real brain with white matter",
    "python -m bundle evaluate DATA/t1/niimath_t1_brain_0p8mm.nii.gz": "needs that brain",
    "python -m bundle enhance dicom_folder": "DICOM of the reader's own; tests/test_dicom.py",
    "python -m bundle enhance DICOM_FOLDER": "likewise",
    "python -m bundle enhance bids_root": "a BIDS data set; tests/test_bids.py",
    "python -m bundle enhance SOURCE": "any of the sources of that page",
    "python -m bundle enhance scans results --scheduler": "needs a cluster; tests/test_cohort.py",
    "python -m pytest": "tests themselves",
    "torchrun": "several processes; tests/test_distributed.py",
    "curl": "asks a server; tests/test_monai_label.py",
    ".venv_label": "a server; tests/test_monai_label.py",
    ".venv/bin/python bundle/integrations/slicer": "the module of 3D Slicer; tests/test_slicer.py",
    "python -m bundle evaluate pairs.json": "pairs of the reader's own; tests/test_given.py",
    "python -m bundle regions": "renders whole heads, for minutes; see test_region_evaluation",
}

# Those that take longer, by a word of theirs: tried with `pytest -m slow`
SLOW = ("train", "adaptation", "evaluate", "uncertainty", "anatomy", "realism", "ckpt_export", "demo", "high_spacing")

SMOKE = "configs/smoke.json"

# Files and folders of the documentation's user, made by `prepare`. Weights of runs are copies of the shipped ones.
WEIGHTS = {
    "model.pt": (
        "run",
        "runs/teacher",
        "runs/stage4",
        "runs/stage5",
        "runs/stage7",
        "runs/stage8",
        "runs/pairs",
        "runs/student",
        "runs/adapted",
    ),
    "model_anatomy.pt": ("runs/prior", "runs/prior2"),
    "model_moe.pt": ("runs/moe1", "runs/moe2", "runs/moe3"),
}


class Command(NamedTuple):
    """A line of a page, continuation lines joined, loops unrolled to two rounds."""

    page: str
    text: str

    @property
    def reason(self):
        """Why it cannot be run here, or None."""
        return next((why for start, why in NOT_HERE.items() if re.match(rf"{re.escape(start)}\b", self.text)), None)

    @property
    def slow(self):
        return any(re.search(rf"\b{word}", self.text) for word in SLOW)

    @property
    def words(self):
        return shlex.split(self.text)


def find_commands():
    """Every command of every page, each text once."""
    found = {}
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            for text in lines(block):
                found.setdefault(text, Command(page.relative_to(ROOT).as_posix(), text))
    return list(found.values())


def blocks(text):
    """Fenced blocks that name no other language, and indented blocks that hold no data."""
    parts = re.split(r"^(```.*)$", text, flags=re.M)
    outside, inside, language = [], [], None
    for part in parts:
        if part.startswith("```"):
            language = part[3:].strip().lower() if language is None else None
        elif language is None:
            outside.append(part)
        elif language not in OTHER_LANGUAGES:
            inside.append(part)
    for paragraph in re.findall(r"(?:\A|\n)[ ]*\n((?:    .*\n|[ ]*\n(?=    ))+)", "\n\n".join(outside) + "\n"):
        for part in re.split(r"\n[ ]*\n", paragraph):
            if part.strip() and part.strip()[0] not in DATA:
                inside.append(part)
    return inside


def lines(block):
    """Logical lines without comments; `a && b` is two, a loop is its first two rounds."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        line = re.sub(r"(^|\s)#( .*)?$", "", line).removeprefix("$ ").strip()
        loop = re.fullmatch(r"for (\w+) in (.+?); do (.+?); done", line)
        rounds = [loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()[:2]] if loop else [line]
        for text in rounds:
            yield from (part.strip() for part in text.split("&&") if part.strip())


def smaller(words):
    """The command as words, at the size of a test: training for one epoch of `configs/smoke.json`."""
    if "--config_file" not in words or not any("train.json" in word for word in words):
        return words
    place = words.index("--config_file") + 1
    configs = [name for name in re.findall(r"configs/\w+\.json", words[place]) if name != SMOKE]
    words = [*words[:place], str([*configs, SMOKE]), *words[place + 1 :]]
    if "--max_epochs" in words:
        words[words.index("--max_epochs") + 1] = "1"
        return words
    return [*words, "--max_epochs", "1"]


def prepare(folder: Path) -> Path:
    """A folder like that of a user who has cloned the bundle and has data, all of it made up and small."""
    (folder / "bundle").symlink_to(ROOT / "bundle")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("*.ts", "*.onnx"))
    for name, runs in WEIGHTS.items():
        for run in runs:
            (folder / run).mkdir(parents=True)
            shutil.copy(ROOT / "models" / name, folder / run / "model.pt")
    labels, affine = phantom_map()
    labels = labels.astype(np.int16)
    for place in ("scans", "PATH", "DATA"):
        (folder / place).mkdir()
    save(folder / "scan.nii.gz", head((20, 22, 18)))
    save(folder / "scan_T1w.nii.gz", head((20, 22, 18)))
    save(folder / "scans" / "sub-01_T1w.nii.gz", head((20, 22, 18)))
    save(folder / "PATH" / "sub-01_T2w.nii.gz", head((20, 22, 18)))
    save(folder / "head_labels.nii.gz", labels, affine)
    save(folder / "DATA" / "map.nii.gz", labels, affine)
    for k, name in enumerate(("a_T1w", "b_T1w", "c_T1w", "d_T2w")):
        save(folder / "DATA" / f"{name}.nii.gz", head((56, 56, 56), seed=k), np.diag([2.0, 2, 2, 1]))
    save(folder / "DATA" / "e_T1w.nii.gz", head((56, 56, 28), seed=5), np.diag([2.0, 2, 4, 1]))
    _write_lists(folder)
    return folder


def prepare_pairs(folder: Path) -> Path:
    """Two phantoms at two fields, where the documentation has them: beside their list, and in DATA."""
    (folder / "DATA").mkdir()
    for k in (1, 2):
        map_file = folder / f"phantom-{k}.nii.gz"
        save(map_file, phantom_map(k)[0].astype(np.int16), phantom_map(k)[1])
        simulate(str(map_file), folder / "pairs", seed=k)
        map_file.unlink()
    pairs = json.loads((folder / "pairs" / "pairs.json").read_text())
    for items in pairs.values():
        for item in items:
            for kind in ("low", "high"):
                shutil.copy(folder / "pairs" / item[kind], folder / "DATA")
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


def _write_lists(folder):
    sharp = [{"image": f"{n}.nii.gz", "kind": "sharp", "modality": "T1w"} for n in ("a_T1w", "b_T1w", "c_T1w")]
    maps = [{"image": "map.nii.gz", "kind": "label_map"}]
    sections = {
        "training": [sharp[0], *maps],
        "validation": sharp[1:2],
        "reported": sharp[2:],
        "brains": [*sharp[1:], {"image": "d_T2w.nii.gz"}],
        "test": sharp[2:],
    }
    sections |= {"reported_simulated": maps, "tuning_simulated": maps}
    scans = [{"image": "e_T1w.nii.gz", "modality": "T1w"}]
    sections |= {f"adaptation{part}": scans for part in ("", "_validation", "_reported")}
    for name in ("configs/datalist.json", "my_list.json"):
        (folder / name).write_text(json.dumps(sections))
