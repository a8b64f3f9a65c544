import json

import pytest
from data import ROOT
from monai.bundle import ConfigWorkflow

from bundle.errors import InputError
from bundle.options import OPTIONS, parse_options


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target_spacin": 1}, "did you mean target_spacing"),
        ({"target_spacing": "[1,2]"}, "one number or three"),
        ({"target_spacing": [0.5, 0.5, 0.0]}, "0.1 to 15"),
        ({"target_spacing": "fine"}, "one number or three"),
        ({"overwrite": "yes"}, "true or false"),
        ({"samples": 0}, "whole number from 1"),
        ({"samples": 2.5}, "whole number"),
        ({"samples": True}, "whole number"),
        ({"temperature": 1.5}, "from 0 to 1"),
        ({"temperature": "nan"}, "from 0 to 1"),
        ({"contrast": "3T"}, "allowed is 7T or input"),
        ({"max_memory": "much"}, "such as 4GB"),
        ({"samples": 3, "temperature": 0}, "samples differ only"),
        ({"steps": 4, "temperature": 0}, "temperature 0 is one step"),
        ({"steps": 1, "samples": 4}, "samples need 2 or more"),
    ],
)
def test_values_that_are_not_allowed_are_refused_with_what_is(given, words):
    with pytest.raises(InputError, match=words):
        parse_options(**given)


@pytest.mark.parametrize(
    ("base", "key", "words"),
    [
        ("train", "max_epoch", "did you mean max_epochs"),
        ("inference", "max_epochs", "not a key of configs/inference.json"),
    ],
)
def test_a_config_refuses_keys_that_its_base_does_not_know(base, key, words):
    path = str(ROOT / "configs" / f"{base}.json")
    given = {key: 3, "_own": 1, "tracking_uri": "x"}
    workflow = ConfigWorkflow(path, workflow_type=base, logging_file=False, bundle_root=str(ROOT), **given)
    with pytest.raises(SystemExit, match=words):
        workflow.initialize()


def test_text_is_read_strictly():
    options = parse_options(overwrite="false", target_spacing="[0.5, 0.6, 0.7]", samples="4", max_memory="2GB")
    assert options["overwrite"] is False and options["target_spacing"] == (0.5, 0.6, 0.7)
    assert options["samples"] == 4 and options["max_memory"] == 2 * 2**30


def test_defaults_depend_on_each_other():
    assert (parse_options()["temperature"], parse_options()["steps"]) == (0, 1)
    assert (parse_options(samples=3)["temperature"], parse_options(samples=3)["steps"]) == (1, 4)
    assert parse_options(temperature=0.5)["steps"] == 4


def test_the_config_and_the_readme_list_the_same_options():
    config = json.loads((ROOT / "configs" / "inference.json").read_text())
    readme = (ROOT / "README.md").read_text()
    for name, option in OPTIONS.items():
        assert config[name] == option.default
        assert config["options"][name] == f"@{name}"
        assert f"`{name}`" in readme
