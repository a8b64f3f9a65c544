import json
import re

import pytest
from data import head, save
from report_data import make_item

from bundle.errors import OutputError
from bundle.job import enhance
from bundle.report import page, report_path, write_report
from bundle.report.page import scrub


def test_a_page_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    item, pred, sidecar = make_item(tmp_path / "a.nii.gz")
    monkeypatch.setattr(page.Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OutputError, match="cannot be written .full."):
        write_report(tmp_path / "a_report.html", item, pred, sidecar)
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_input_s_name_or_place_is_in_the_page(tmp_path):
    source = tmp_path / "ward7" / "DOE_JANE_19610405.nii.gz"
    item, pred, sidecar = make_item(source)
    write_report(tmp_path / "r.html", item, pred, sidecar)
    text = (tmp_path / "r.html").read_text()
    for telling in ("DOE", "JANE", "1961", "ward7", str(tmp_path)):
        assert telling not in text
    assert "the input: something is &lt;odd&gt;" in text and "coil.grad" in text


def test_the_page_needs_nothing_but_itself(tmp_path):
    item, pred, sidecar = make_item("a.nii.gz")
    write_report(tmp_path / "r.html", item, pred, sidecar)
    text = (tmp_path / "r.html").read_text()
    assert "default-src 'none'" in text and not re.search(r"https?://|//[a-z]+\.[a-z]|@import|url\(", text)
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "Research use only" in text and len(text) < 3_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Source": "x", "a": ["/data/x/ab.nii: bad", 3, None]}, {"a": ["the input: bad", 3, None]}),
        ("/home/me/coil.grad", "coil.grad"),
        ("C:\\me\\coil.grad", "coil.grad"),
        ("a T1w volume", "a T1w volume"),
    ],
)
def test_texts_lose_names_and_paths(value, expected):
    assert scrub(value, "/data/x/ab.nii") == expected


def test_the_main_job_writes_the_page_beside_the_result(tmp_path):
    source = save(tmp_path / "sub-01_T1w.nii.gz", head((24, 26, 20)))
    enhance(str(source), str(tmp_path / "out"), contrast="input", report="true")
    result = tmp_path / "out" / "sub-01_desc-superres_T1w.nii.gz"
    assert sorted(p.name for p in result.parent.glob("*.html")) == ["sub-01_desc-superres_T1w_report.html"]
    text = report_path(result).read_text()
    assert "1/3 by chance" not in text and "Difference to the input" in text
    layers = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["layers"]
    assert set(layers) == {"before", "after", "disagreement"}
    enhance(str(source), str(tmp_path / "plain"))
    assert not list((tmp_path / "plain").glob("*.html"))
