"""Run a cohort again and again, kill it at random moments, and look at what is there after each.

python tests/killing.py SOURCE FOLDER KILLS SEED [OPTIONS as JSON]

Every run is forked off this process, which has imported everything and computed nothing: hundreds are affordable.
Prints a JSON object: kills, how many of them hit a run that had begun to write, runs that ended by themselves.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import bundle.engines.enhance  # noqa: F401  (here, and not in every fork)
import bundle.failures  # noqa: F401
import bundle.forecast  # noqa: F401
import bundle.tissue  # noqa: F401
import bundle.transforms  # noqa: F401
from bundle.job import enhance


def start(source, out, options):
    """The real job in a fork; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        enhance(str(source), str(out), **options)
        code = 0
    finally:
        os._exit(code)


def undisturbed(source, out, options):
    begin = time.perf_counter()
    assert os.waitpid(start(source, out, options), 0)[1] == 0
    return time.perf_counter() - begin


def content(path):
    """What must be the same in every run: the bytes, or the sidecar without its seconds."""
    if path.suffix != ".json":
        return path.read_bytes()
    return {k: v for k, v in json.loads(path.read_text()).items() if k != "RuntimeSeconds"}


def look(out, reference):
    """See that every visible file is whole; the number of temporary ones."""
    files = list(out.iterdir()) if out.is_dir() else []
    hidden = [p for p in files if p.name.startswith(".")]
    assert all(p.name.startswith(".spcdd-") for p in hidden), hidden
    for path in files:
        if path not in hidden:
            assert content(path) == reference[path.name], path
    return len(hidden)


def main(source, folder, kills, seed, options):
    folder = Path(folder)
    seconds = undisturbed(source, folder / "reference", options)
    reference = {p.name: content(p) for p in (folder / "reference").iterdir()}
    draw, out = random.Random(seed), folder / "out"
    counts = {"kills": 0, "in_a_write": 0, "with_results": 0, "ended": 0, "seconds_of_a_run": round(seconds, 2)}
    while counts["kills"] < kills:
        child = start(source, out, options)
        time.sleep(draw.uniform(0, 1.1 * seconds))
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        left = look(out, reference)
        counts["kills" if killed else "ended"] += 1
        counts["in_a_write"] += left > 0
        names = {p.name for p in out.iterdir() if not p.name.startswith(".")} if out.is_dir() else set()
        counts["with_results"] += bool(names)
        if names == set(reference) and draw.random() < 0.7:
            shutil.rmtree(out)
    undisturbed(source, out, options)
    assert look(out, reference) == 0 and {p.name for p in out.iterdir()} == set(reference)
    print(json.dumps(counts))


if __name__ == "__main__":
    given = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), given)
