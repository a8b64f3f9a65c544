import ast
import sys

import pytest
from data import ROOT, head, save

from bundle.__main__ import main
from bundle.command_line import refuse_code
from bundle.errors import InputError
from bundle.job import enhance

COMMANDS = ("enhance", "demo", "simulate", "realism", "evaluate", "uncertainty", "anatomy", "benchmark")
BUILTIN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN = {"system", "popen", "getoutput", "getstatusoutput"}  # a shell; programs of their own get lists of words
PICKLING = {"load", "loads", "dump", "dumps", "Unpickler", "Pickler"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "words",
    [
        ["$open('/tmp/x','w')"],
        ["a", "--device=$__import__('os').abort()"],
        ["a", "b", "--device", "@network"],
        ["a", "b", "--target_spacing", "[1, '%x.json::y']"],
        ["a", "b", "--device", "{'_target_': 'os.abort'}"],
        ["a", "b", "--x", "{'a': [{'_target_': 'os.abort'}]}"],
    ],
    ids=str,
)
def test_no_command_takes_code(command, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spcdd", command, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    text = capsys.readouterr().err.strip()
    assert ended.value.code == 1 and text.startswith("error: ") and "\n" not in text
    assert "are not taken from the command line" in text


def test_ordinary_words_are_taken():
    for value in ("a@b.nii", "50%.nii.gz", "./$x.nii", "/data/@x/a.nii", 0.5, [1, 2, 3], {"a": "b"}, None, ""):
        refuse_code(value)


def test_python_callers_cannot_run_code_by_accident_either(tmp_path):
    save(tmp_path / "a.nii.gz", head((20, 20, 20)))
    for name, value in (("device", "$1/0"), ("device", {"_target_": "os.abort"}), ("scheduler", "$1/0")):
        with pytest.raises(InputError, match=f"--{name}"):
            enhance(str(tmp_path / "a.nii.gz"), str(tmp_path / "out"), **{name: value})


def test_names_of_files_are_only_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "$1+1"
    folder.mkdir()
    for name in ("$1", "@input", "%x", "a#1", "a::b"):
        save(folder / f"{name}.nii.gz", head((20, 20, 20)))
    enhance("$1+1", "@input#out")
    assert len(list((tmp_path / "@input#out").glob("*_desc-superres.nii.gz"))) == 5


def _calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            name = node.func.attr if owner is not None else getattr(node.func, "id", "")
            yield node, getattr(owner, "id", None), name


def _forbidden(node, owner, name):
    builtin = name in BUILTIN and (isinstance(node.func, ast.Name) or owner == "builtins")
    return builtin or name in FORBIDDEN


@pytest.mark.parametrize("path", sorted((ROOT / "bundle").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_package_has_no_eval_no_shell_and_no_pickle(path):
    for node, owner, name in _calls(ast.parse(path.read_text())):
        keywords = {k.arg: k.value for k in node.keywords}
        where = f"{path.name}:{node.lineno}"
        assert not _forbidden(node, owner, name), where
        assert not (owner in ("pickle", "cloudpickle", "dill", "joblib") and name in PICKLING), where
        assert not (owner == "yaml" and name == "load"), where
        assert "shell" not in keywords and keywords.get("allow_pickle") is None, where
        if owner == "torch" and name == "load":
            assert getattr(keywords.get("weights_only"), "value", False) is True, where


def test_the_search_finds_what_it_looks_for():
    for code in ("eval('1')", "os.system('ls')", "pickle.load(f)", "builtins.exec('')"):
        ((node, owner, name),) = _calls(ast.parse(code))
        assert _forbidden(node, owner, name) or (owner == "pickle" and name in PICKLING)
    ((node, owner, name),) = _calls(ast.parse("network.eval()"))
    assert not _forbidden(node, owner, name)
