import json
import sys

import pytest
from data import head, save

from bundle.__main__ import main
from bundle.errors import InputError
from bundle.job import read_items
from bundle.studies.commands import read_seeds, words


def _main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spcdd", *map(str, arguments)])
    main()


def test_lists_come_as_text_or_as_fire_reads_them():
    assert words("a,b") == words(("a", "b")) == ["a", "b"] and words(3) == ["3"]
    assert read_seeds("0,2") == [0, 2] and read_seeds(5) == [5] and read_seeds(None) is None
    with pytest.raises(InputError, match="--seeds 'x'"):
        read_seeds("0,x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate", "OUT", "--studies", "priors"], "--studies 'priors': allowed are prior, modulation, distillation"),
        (["ablate", "OUT", "--scale", "large"], "--scale 'large': allowed are volume, seed"),
        (["ablate", "OUT", "--dataset_dir", "gone"], "no such file; set --dataset_dir to the folder of the data"),
        (["morphometry", "gone.nii.gz", "OUT"], "gone.nii.gz: no such file or folder"),
        (["ablate", "OUT", "--scale", "seed", "--studies", "experts"], "at --scale seed there are prior, modulation"),
        (["hallucination", "VOLUME", "OUT", "--factors", "2"], "three whole numbers"),
        (["evaluate", "VOLUME", "OUT", "--tissue", "maybe"], "--tissue 'maybe': allowed is true or false"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(monkeypatch, capsys, tmp_path, arguments, message):
    volume = save(tmp_path / "a_T1w.nii.gz", head((20, 20, 20)))
    places = {"OUT": tmp_path / "out", "VOLUME": volume}
    with pytest.raises(SystemExit) as ended:
        _main(monkeypatch, *(places.get(a, a) for a in arguments))
    text = capsys.readouterr().err.strip()
    assert ended.value.code == 1 and text.startswith("error: ") and message in text and "\n" not in text
    assert not (tmp_path / "out").exists()


def test_a_section_of_pairs_and_one_of_volumes_can_be_read_together(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", head((20, 20, 20)))
    lists = {"one": [{"image": "a.nii.gz"}], "two": [{"low": "a.nii.gz", "high": "b.nii.gz"}], "none": []}
    path = tmp_path / "list.json"
    path.write_text(json.dumps(lists))
    items = read_items(str(path), "one,two", str(tmp_path))
    assert items[0]["image"].endswith("a.nii.gz") and items[1]["high"].endswith("b.nii.gz")
    with pytest.raises(InputError, match="section 'none' is empty"):
        read_items(str(path), "none", str(tmp_path))


def test_the_evaluation_runs_as_a_command_on_a_pair_with_a_perfect_prediction(monkeypatch, capsys, tmp_path):
    volume = save(tmp_path / "a_T1w.nii.gz", head((32, 32, 32)))
    _main(monkeypatch, "evaluate", volume, tmp_path / "out", "--protocols", "A", "--factors", "[[2,2,2]]")
    printed = capsys.readouterr().out
    assert "| bundle |" in printed and "metrics.png: drawn" in printed
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [r["method"] for r in rows] == ["trilinear", "cubic", "IBP", "bundle, not projected", "bundle"]
    assert {"ms_ssim", "gmsd", "dice_gm", "consistency", "memory_gb"} <= set(rows[-1])
