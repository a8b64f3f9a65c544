import json

import pytest
from data import ROOT

from bundle.errors import InputError
from bundle.io import sha256
from bundle.studies import reproduce


def test_a_table_is_made_once_for_the_same_weights(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(reproduce, "tables", lambda data: {n: lambda f, n=n: made.append((n, f)) for n in "ab"})
    monkeypatch.setattr(reproduce, "check_data", lambda data: None)
    reproduce.reproduce(tmp_path, "data", ["a"])
    reproduce.reproduce(tmp_path, "data")
    assert made == [("a", tmp_path / "a"), ("b", tmp_path / "b")]
    record = json.loads((tmp_path / "a" / "table.json").read_text())
    assert record["weights"]["model.pt"] == sha256(ROOT / "models" / "model.pt")
    record["weights"]["model_anatomy.pt"] = "of another extractor"
    (tmp_path / "a" / "table.json").write_text(json.dumps(record))
    reproduce.reproduce(tmp_path, "data")
    assert [name for name, _ in made] == ["a", "b", "a"]


def test_names_and_data_are_checked_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="--only 'reall': allowed are real, simulated"):
        reproduce.reproduce(tmp_path / "out", "data", ["reall"])
    with pytest.raises(InputError, match="no such file; set --dataset_dir to the folder of the data"):
        reproduce.reproduce(tmp_path / "out", str(tmp_path))
    assert not (tmp_path / "out").exists()
