import subprocess
import sys

import pytest
from data import ROOT, head, save

from bundle.__main__ import main


def _main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["spcdd", *map(str, words)])
    main()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target_spacin", "1"], "error: --target_spacin: no such option (did you mean target_spacing?)"),
        (["--overwrite", "maybe"], "error: --overwrite 'maybe': allowed is true or false"),
        (["--device", "cuda:99"], "error: --device cuda:99:"),
    ],
)
def test_bad_options_are_one_line_on_standard_error(monkeypatch, capsys, tmp_path, words, message):
    source = save(tmp_path / "a.nii.gz", head((20, 20, 20)))
    with pytest.raises(SystemExit) as ended:
        _main(monkeypatch, "enhance", source, tmp_path / "out", *words)
    text = capsys.readouterr().err.strip() or str(ended.value)
    assert text.startswith(message) and "\n" not in text and ended.value.code not in (0, None)
    assert not (tmp_path / "out").exists()


def test_options_are_listed(monkeypatch, capsys):
    _main(monkeypatch, "options")
    assert "--target_spacing" in capsys.readouterr().out


def test_unknown_protocols_are_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        _main(monkeypatch, "evaluate", tmp_path, tmp_path / "out", "--protocols", "Z")
    assert "--protocols 'Z': allowed are A, B, C" in capsys.readouterr().err


@pytest.mark.parametrize("networks", ["plain", "plain=", "a=b,=c"])
def test_networks_need_a_name_and_a_file(monkeypatch, capsys, tmp_path, networks):
    with pytest.raises(SystemExit):
        _main(monkeypatch, "evaluate", ROOT, tmp_path / "out", "--networks", networks)
    assert f"--networks {networks}: allowed is NAME=FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factors", ["2", "[2,2,2]", "[[1.3,2,2]]", "[[0,1,1]]"])
def test_factors_that_make_no_sense_are_refused(monkeypatch, capsys, tmp_path, factors):
    with pytest.raises(SystemExit):
        _main(monkeypatch, "evaluate", tmp_path, tmp_path / "out", "--factors", factors)
    assert "three whole numbers: [[2,2,2],[1,1,3]]" in capsys.readouterr().err


def test_help_does_not_load_torch():
    code = """
import sys, bundle.__main__ as command
sys.argv = ["spcdd", "enhance", "--help"]
try:
    command.main()
except SystemExit:
    pass
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "OUTPUT_DIR" in done.stdout + done.stderr
