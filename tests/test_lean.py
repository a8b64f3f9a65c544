import subprocess
import sys

import pytest
from data import ROOT, head, save

from bundle.job import enhance
from bundle.lean import UNUSED, hidden


def test_what_is_hidden_is_there_again_afterwards():
    sys.modules.pop("colorsys", None)
    with hidden(("colorsys",)), pytest.raises(ImportError, match="colorsys is hidden by bundle.lean"):
        import colorsys
    import colorsys  # noqa: F401, F811


def test_monai_comes_without_what_the_main_job_never_uses_and_it_can_still_be_imported():
    code = f"""
import sys
from bundle.lean import import_monai
import_monai()
import bundle.job, bundle.transforms, bundle.engines.enhance, bundle.tissue
loaded = [name for name in {UNUSED + ("torch.distributed.optim", "torch.distributed.fsdp")!r} if name in sys.modules]
assert not loaded, loaded
import scipy.signal
from torch.distributed.optim import ZeroRedundancyOptimizer
assert ZeroRedundancyOptimizer.__init__ is not object.__init__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_command_gives_the_same_bytes_as_the_job_within_a_full_monai(tmp_path):
    source = save(tmp_path / "a_T1w.nii.gz", head((24, 24, 20)))
    command = [sys.executable, "-m", "bundle", "enhance", str(source), str(tmp_path / "lean")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    enhance(str(source), str(tmp_path / "full"))
    one, two = (tmp_path / name / "a_T1w_desc-superres.nii.gz" for name in ("lean", "full"))
    assert one.read_bytes() == two.read_bytes()


def test_the_list_of_options_needs_no_torch():
    code = "import sys, bundle.options; assert not {'torch', 'monai'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
