import json
from pathlib import Path

import nibabel as nib
import pytest

from bundle.demo import demo


def test_the_demo_shows_that_the_bundle_is_ahead(tmp_path, capsys):
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    demo(tmp_path)
    scores = {row["method"]: row for row in json.loads((tmp_path / "demo.json").read_text())["rows"]}
    assert scores["bundle"]["psnr"] > scores["cubic"]["psnr"] + 1
    assert scores["bundle"]["ssim"] > max(scores[m]["ssim"] for m in ("trilinear", "cubic", "IBP"))
    assert nib.load(tmp_path / "input_T1w_desc-superres.nii.gz").header.get_zooms() == pytest.approx((1, 1, 1))
    assert (tmp_path / "demo.png").stat().st_size > 100_000
    printed = capsys.readouterr().out
    assert "| MNI152 | T1w | input | A | 2x2x2 | bundle |" in printed
    assert Path(printed.splitlines()[-1]).read_text().startswith("<!doctype html>")
