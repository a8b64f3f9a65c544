"""What the model zoo's own checks (ci/verify_bundle.py and ci/run_premerge_cpu.sh there) do, without the network."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from data import ROOT, SHARED

NAME = "brain_mri_super_resolution"
PARTS = ("bundle", "configs", "docs", "models")
SCHEMA = SHARED / "schemas" / "meta_schema_20240725.json"
LARGE = 25 * 2**20  # bytes; what is larger belongs into large_files.yml
STYLE = {
    "black": ["--check", "--line-length", "120"],
    "isort": ["--check-only", "--profile", "black", "--line-length", "120"],
    "flake8": ["--max-line-length", "120", "--extend-ignore", "E203"],  # E203 and black disagree about slices
}
VERIFY = """
import sys
from monai.bundle import ckpt_export, verify_net_in_out
import bundle
root = sys.argv[1]
assert bundle.__file__.startswith(root)
common = {"meta_file": f"{root}/configs/metadata.json", "config_file": f"{root}/configs/inference.json"}
verify_net_in_out(net_id="network_def", bundle_root=root, **common)
files = {"ckpt_file": f"{root}/models/model.pt", "filepath": f"{root}/models/verify_model.ts"}
ckpt_export(net_id="network_def", bundle_root=root, **files, **common)
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """The folder that would be submitted, ``models/NAME`` of the zoo, as far as it is the repository's."""
    folder = tmp_path_factory.mktemp("zoo") / "models" / NAME
    listed = subprocess.run(["git", "ls-files", "-z", *PARTS, "LICENSE"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_everything_the_zoo_wants_is_there_and_small(submitted):
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json"):
        assert (submitted / name).is_file(), name
    for name in ("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "models/model.pt"):
        assert (submitted / name).is_file(), name
    files = [path for path in submitted.rglob("*") if path.is_file()]
    assert len(files) > 60
    assert [str(path) for path in files if path.stat().st_size >= LARGE] == []  # so no large_files.yml
    assert [str(path) for path in files if re.search(r"[^\w.\-]", path.name)] == []
    assert re.fullmatch(r"[a-z][a-z0-9_]*", NAME)


def test_the_version_is_new_and_in_the_changelog(submitted):
    metadata = json.loads((submitted / "configs" / "metadata.json").read_text())
    versions = [tuple(map(int, version.split("."))) for version in metadata["changelog"]]
    assert versions == sorted(versions, reverse=True) and all(metadata["changelog"].values())
    assert tuple(map(int, metadata["version"].split("."))) == versions[0]
    card = (submitted / "docs" / "README.md").read_text()
    assert [title for title in ("## Description", "## Data", "## Performance", "## License") if title not in card] == []


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema would have to be downloaded")
def test_the_metadata_follow_the_schema(submitted):
    (submitted / "eval").mkdir()
    shutil.copy(SCHEMA, submitted / "eval" / "schema.json")
    from monai.bundle import verify_metadata

    verify_metadata(str(submitted / "configs" / "metadata.json"), filepath=str(submitted / "eval" / "schema.json"))


def test_the_folder_alone_gives_the_network_its_shapes_and_a_torchscript_file(submitted, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(submitted)}
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, str(submitted)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        torch.jit.load(str(submitted / "models" / "verify_model.ts"))(torch.rand(1, 1, 8, 8, 8)).shape[2:] == (8,) * 3
    )


@pytest.mark.parametrize("tool", STYLE)
def test_the_code_has_the_zoo_s_style(tool, submitted):
    pytest.importorskip(tool)
    command = [sys.executable, "-m", tool, *STYLE[tool], str(submitted / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
