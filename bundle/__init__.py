"""Super-resolution of brain MRI: a 1.5 T or 3 T volume becomes a sharper, 7 T-like one, with its geometry kept."""

import os

__version__ = "0.12.0"

# Huge pages for large CPU tensors: a whole head then takes about half the time, most of which went into page faults.
# PyTorch reads this at its first allocation, so it works for `python -m monai.bundle run` as well.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
