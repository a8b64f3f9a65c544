"""What can go wrong around a run: it is killed, the disk is full, files vanish."""

import json
import os
import resource
import subprocess
import sys

import pytest
from data import ROOT, head, save

from bundle.io import read_volume
from bundle.job import enhance


@pytest.fixture
def source(tmp_path):
    """A folder of tiny volumes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(4):
        save(folder / f"v{k}_T1w.nii.gz", head((20, 22, 18), seed=k))
    return folder


def _kill(source, folder, kills, seed):
    command = [sys.executable, str(ROOT / "tests" / "killing.py"), source, folder, kills, seed]
    options = json.dumps({"save_uncertainty": True})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command), options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_killed_at_random_moments_a_cohort_has_whole_results_only_and_the_next_run_completes_it(source, tmp_path):
    assert _kill(source, tmp_path / "killed", 5, 0)["kills"] == 5


@pytest.mark.slow  # about 200 times half a run
def test_killed_two_hundred_times(source, tmp_path):
    counts = _kill(source, tmp_path / "killed", 200, 1)
    assert counts["kills"] == 200 and counts["with_results"] > 20 and counts["in_a_write"] > 0


def test_a_disk_that_fills_up_ends_the_cohort_and_leaves_no_part_of_a_result(source, tmp_path):
    out, before = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    out.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # a sidecar fits, a volume does not
    try:
        with pytest.raises(SystemExit) as ended:
            enhance(str(source), str(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    words = str(ended.value)
    assert "1 of 4 volumes were refused, and 3 were not begun" in words and "make room or choose another" in words
    assert not list(out.iterdir())
    enhance(str(source), str(out))
    assert len(list(out.glob("*superres*.nii.gz"))) == 4


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/out"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(source, folder):
    with pytest.raises(SystemExit, match="cannot write here .*choose another output folder"):
        enhance(str(source), folder)


def test_an_output_folder_that_vanishes_ends_the_cohort(source, tmp_path, monkeypatch):
    out, reads = tmp_path / "out", []

    def read(path):
        reads.append(path)
        if len(reads) == 2:
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        return read_volume(path)

    monkeypatch.setattr("bundle.transforms.read_volume", read)
    with pytest.raises(SystemExit, match="cannot be written .No such file or directory."):
        enhance(str(source), str(out))
    assert len(reads) == 2 and not out.exists()


def test_an_input_that_vanishes_is_in_the_table_and_the_others_are_done(source, tmp_path, monkeypatch):
    def read(path):
        (source / "v1_T1w.nii.gz").unlink(missing_ok=True)
        return read_volume(path)

    monkeypatch.setattr("bundle.transforms.read_volume", read)
    with pytest.raises(SystemExit) as ended:
        enhance(str(source), str(tmp_path / "out"))
    assert "1 of 4 volumes were refused" in str(ended.value) and "no such file" in str(ended.value)
    assert len(list((tmp_path / "out").glob("*superres*.nii.gz"))) == 3


def test_an_unexpected_error_costs_its_volume_only(source, tmp_path, monkeypatch, capsys):
    def read(path):
        if "v2" in str(path):
            raise KeyError("surprise")
        return read_volume(path)

    monkeypatch.setattr("bundle.transforms.read_volume", read)
    with pytest.raises(SystemExit, match="1 of 4 volumes were refused\n.*unexpected .*please report"):
        enhance(str(source), str(tmp_path / "out"))
    assert "surprise" in capsys.readouterr().err


def test_too_little_memory_for_any_tiles_is_one_line_before_the_voxels_are_touched(tmp_path):
    code = """
import resource, sys, psutil
import bundle.job, bundle.transforms, bundle.tissue, bundle.engines.enhance, bundle.forecast
size = psutil.Process().memory_info().vms + 60 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (size, size))
bundle.job.enhance(sys.argv[1], sys.argv[2])
"""
    path = save(tmp_path / "large_T1w.nii.gz", head((70, 70, 70)))
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "GB are free" in done.stderr.splitlines()[-1]
    assert "1 of 1 volumes are too large for it and will be refused" in done.stdout
