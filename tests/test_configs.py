import ast
import importlib
import json
import re

import pytest
from data import ROOT
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.config_item import ComponentLocator

CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.json") if p.name not in ("metadata.json", "datalist.json"))
REQUIRED = {
    "inference.json": "bundle_root device dataset_dir dataset evaluator network_def inferer output_dir",
    "train.json": "bundle_root device dataset_dir network_def loss optimizer train#trainer#max_epochs train#inferer "
    "train#dataset#data train#handlers validate#evaluator validate#dataset#data validate#inferer",
}


def _walk(content, path=""):
    yield path, content
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _walk(value, f"{path}#{key}" if path else str(key))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_configs_hold_wiring_and_no_logic(path):
    for where, value in _walk(json.loads(path.read_text())):
        if isinstance(value, str) and value.startswith("$"):
            assert len(value) <= 80, where
            assert "lambda" not in value, where
            code = re.sub(r"[@%][\w#:]+", "x", value[1:])
            kinds = {type(node) for node in ast.walk(ast.parse(code))}
            conditional = {ast.IfExp} & kinds and "cuda" not in value
            assert not conditional and not kinds & {ast.ListComp, ast.DictComp, ast.GeneratorExp}, where


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_target_resolves(path):
    locator = ComponentLocator()
    for where, value in _walk(json.loads(path.read_text())):
        if isinstance(value, dict) and "_target_" in value:
            name = ConfigComponent(value, id=where, locator=locator).resolve_module_name()
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), f"{where}: {name}"


def test_no_block_stands_in_two_configs():
    seen = {}
    for path in CONFIGS:
        for where, value in _walk(json.loads(path.read_text())):
            if isinstance(value, dict) and len(json.dumps(value)) > 160:
                key = json.dumps(value, sort_keys=True)
                assert seen.setdefault(key, path.name) == path.name, f"{path.name} {where} and {seen[key]}"


def test_the_two_bases_agree_about_the_network():
    definitions = [json.loads((ROOT / "configs" / name).read_text())["network_def"] for name in REQUIRED]
    assert definitions[0] == definitions[1]


@pytest.mark.parametrize("name", REQUIRED)
def test_the_ids_that_monai_looks_for_are_there(name):
    parser = ConfigParser(json.loads((ROOT / "configs" / name).read_text()))
    for item in REQUIRED[name].split():
        assert item in parser, item


def test_versions_agree():
    import bundle

    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    assert metadata["version"] == bundle.__version__ and bundle.__version__ in metadata["changelog"]
    pinned = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))
    wanted = {k: metadata[f"{v}_version"] for k, v in (("monai", "monai"), ("torch", "pytorch"), ("numpy", "numpy"))}
    wanted |= {k.lower(): v for k, v in metadata["required_packages_version"].items()}
    assert {k: pinned[k] for k in wanted} == wanted
    assert f"## {bundle.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {bundle.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_subjects_that_are_reported_are_never_trained_on():
    datalist = json.loads((ROOT / "configs" / "datalist.json").read_text())
    training = [item["image"] for item in datalist["training"]]
    held_out = ("niimath", "adi", "seg3d", "synthseg_05", "synthseg_12", "synthseg_17", "synthseg_18")
    assert not [i for i in training if any(h in i for h in (*held_out, "synthseg_02", "synthseg_20"))]
    assert all("seg3d" in item["image"] for item in datalist["validation"])
