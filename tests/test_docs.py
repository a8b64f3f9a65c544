"""The documentation: its commands run, its options exist, its links lead somewhere."""

import contextlib
import inspect
import json
import logging
import re
import runpy
import shutil
import sys

import pytest
import torch
from data import ROOT, phantom_map
from docs_commands import NOT_HERE, PAGES, blocks, find_commands, lines, prepare, prepare_pairs, smaller

from bundle import job
from bundle.__main__ import Commands
from bundle.__main__ import main as bundle_main
from bundle.networks.super_resolver import SuperResolver
from bundle.options import OPTIONS

COMMANDS = find_commands()
RUNNABLE = [c for c in COMMANDS if c.reason is None]
PARAMETERS = [pytest.param(c, id=c.text[:90], marks=[pytest.mark.slow] if c.slow else []) for c in RUNNABLE]


def test_blocks_of_a_page_become_commands():
    page = (
        "Text\n\n    a --x 1 \\\n        --y#z 2    # why\n    for s in 1 2 3; do b $s; done\n\n"
        + '    {"no": 1}\n\n- list\n'
    )
    page += "\n```bash\n$ c && d\n```\n\n```json\ne\n```\n"
    assert [line for block in blocks(page) for line in lines(block)] == ["c", "d", "a --x 1 --y#z 2", "b 1", "b 2"]


def test_there_is_a_command_of_every_kind():
    texts = " ".join(c.text for c in COMMANDS)
    assert len(RUNNABLE) > 25 and all(
        f"python -m bundle {name}" in texts for name in ("enhance", "simulate", "evaluate")
    )


@pytest.mark.parametrize("start", NOT_HERE)
def test_what_is_left_out_is_still_shown_somewhere(start):
    assert any(c.reason == NOT_HERE[start] for c in COMMANDS), f"{start!r} can go from NOT_HERE"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.text[:90])
def test_a_command_names_what_there_is(command):
    """Of all commands: known program, known options, configs that exist."""
    words = command.words
    given = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    if words[:3] == ["python", "-m", "bundle"]:
        known = set(inspect.signature(getattr(Commands, words[3])).parameters)
        known |= set(OPTIONS) if words[3] == "enhance" else set()
        assert set(given) <= known, command.page
    elif words[:4] == ["python", "-m", "monai.bundle", "run"]:
        configs = re.findall(r"configs/\w+\.json", words[words.index("--config_file") + 1])
        keys = {key for name in configs for key in json.loads((ROOT / name).read_text())}
        keys |= {"config_file", "bundle_root", "tracking"}
        assert configs and {name.partition("#")[0] for name in given} <= keys, command.page
    else:
        assert command.reason or words[:3] == ["python", "-m", "monai.bundle"], f"{command}: run it or say why not"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return prepare_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def clone(prepared, tmp_path, monkeypatch):
    """A fresh copy of the prepared folder, and the current one."""
    folder = tmp_path / "clone"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(job, "ROOT", folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("bundle.simulate.brain_phantom", lambda seed: torch.from_numpy(phantom_map(seed)[0]))
    handlers, level = list(logging.root.handlers), logging.root.level
    yield folder
    logging.root.handlers[:] = handlers  # `monai.bundle run` reads configs/logging.conf
    logging.root.setLevel(level)


@pytest.mark.parametrize("command", PARAMETERS)
def test_a_command_does_what_it_is_shown_for(command, clone, monkeypatch, capsys, request):
    if "pairs.json" in command.text:
        shutil.copytree(request.getfixturevalue("pairs"), clone, dirs_exist_ok=True)
    if "--teacher_weights" in command.words:
        teacher = SuperResolver("teacher", prior=True, modulation=True, uncertainty=True)
        torch.save(teacher.state_dict(), clone / command.words[command.words.index("--teacher_weights") + 1])
    before = _files(clone)
    _run(smaller(command.words), monkeypatch)
    assert _files(clone) != before or capsys.readouterr().out.strip(), "it wrote and said nothing"


def _files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def _run(words, monkeypatch):
    """A ``python -m`` command in this process: all is imported already."""
    monkeypatch.setattr(sys, "argv", words[2:])
    with contextlib.suppress(_Success), _exit_means_failure():
        if words[2] == "bundle":
            bundle_main()
        else:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)


class _Success(Exception):
    """The command ended by itself, with status 0."""


@contextlib.contextmanager
def _exit_means_failure():
    try:
        yield
    except SystemExit as ended:
        if ended.code in (0, None):
            raise _Success from None
        pytest.fail(f"exit status: {ended.code}")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not heading or heading in _anchors(path), f"{page.name}: {target}"


def _anchors(path):
    """Headings as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
