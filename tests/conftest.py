import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests/data.py


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)
