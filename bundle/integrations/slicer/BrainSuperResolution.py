#!/usr/bin/env python-real
"""Command-line module of 3D Slicer: a sharper brain MRI volume. Described by the XML file beside it.

It needs the bundle's packages: in Slicer's own Python, or in another one that ``--python`` names. This file itself is
plain Python, so that it can say what is missing.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[3]  # of the bundle; where this file was copied elsewhere, the bundle must be installed
PACKAGES = ("torch", "monai", "nibabel", "SimpleITK", "itk", "ignite", "psutil", "scipy")
# of Slicer's own Python and libraries; another Python would stumble over them
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSTARTUP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def take_python(words: list[str]) -> str:
    """Remove ``--python FILE`` from the arguments; returns the file, empty where there is none."""
    for index, word in enumerate(words):
        if word.startswith("--python="):
            return words.pop(index).partition("=")[2]
        if word == "--python":
            words.pop(index)
            return words.pop(index) if index < len(words) else ""
    return ""


def environment(own: bool) -> dict[str, str]:
    """Variables for the Python that does the work: the bundle is found, and another Python is not led astray."""
    variables = {k: v for k, v in os.environ.items() if own or k not in FOREIGN}
    variables["PYTHONSAFEPATH"] = "1"  # a folder that Slicer happens to stand in holds no packages
    if (ROOT / "bundle" / "job.py").is_file():
        paths = [str(ROOT), variables.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return variables


def missing() -> list[str]:
    """Packages of the bundle that this Python lacks."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def main(words: list[str]) -> int:
    """Do what Slicer asks; returns the exit status."""
    if "--xml" in words:
        print(HERE.with_suffix(".xml").read_text(encoding="utf-8"), end="")
        return 0
    python = take_python(words)
    if python and not Path(python).is_file():
        print(f"error: --python {python}: no such file; name the python program of an environment", file=sys.stderr)
        return 1
    if not python and missing():
        print(
            f"error: this Python ({sys.executable}) lacks {', '.join(missing())}; install the bundle into it, or name "
            "another environment's python under 'Python of the bundle'",
            file=sys.stderr,
        )
        return 1
    command = [python or sys.executable, "-m", "bundle.integrations.slicer_job", *words]
    sys.stdout.flush()
    if os.name == "posix":  # takes the place of this process, so that Slicer's Cancel reaches it
        os.execve(command[0], command, environment(not python))
    return subprocess.call(command, env=environment(not python))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
