import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests/data.py
torch.set_num_threads(1)  # the volumes are small, and threads that wait for one another on a busy machine take minutes


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Folder with ``model.ts`` and ``model.onnx`` of the shipped network."""
    pytest.importorskip("onnxscript")
    from bundle.export import export

    folder = tmp_path_factory.mktemp("exported")
    export(folder)
    return folder


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)
