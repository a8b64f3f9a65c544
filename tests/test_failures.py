import csv
import io

import pytest
import torch

from bundle.errors import InputError, OutputError
from bundle.failures import Failure, refusal, save, summary


def _wrapped(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("applying transform") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.nii: too small"), "a.nii: too small"),
        (OSError(28, "No space left on device", "x.nii"), "x.nii: No space left on device"),
        (OSError(5, "Input/output error"), "output: Input/output error"),
        (MemoryError(), "not enough memory; choose a smaller --max_memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory"),
    ],
)
def test_the_refusal_behind_a_wrapped_error_is_found(error, words):
    assert str(refusal(_wrapped(error))).startswith(words)


def test_an_unexpected_error_is_named_and_its_way_is_printed(capsys):
    failure = Failure.of("a.nii", _wrapped(KeyError("x")))
    assert failure.reason.startswith("unexpected RuntimeError: applying transform") and not failure.final
    assert "KeyError" in capsys.readouterr().err


def test_one_volume_is_one_line_that_names_it():
    assert summary([Failure.of("d/a.nii", InputError("d/a.nii: too small"))], 1) == "error: d/a.nii: too small"
    assert "\n" not in summary([Failure.of("d/a\nb.nii", InputError("d/a\nb.nii: too\nsmall"))], 1)


def test_many_are_a_table():
    failures = [Failure("a.nii", "too small"), Failure("long name.nii", "too large")]
    assert summary(failures, 9, undone=3).splitlines() == [
        "error: 2 of 9 volumes were refused, and 3 were not begun",
        "  a.nii          too small",
        "  long name.nii  too large",
    ]


def test_the_table_is_saved_for_a_cohort_and_goes_when_nothing_fails_any_more(tmp_path):
    failures = [Failure("a, b\n.nii", 'it says "no"')]
    assert save(failures, 1, tmp_path) is None and not list(tmp_path.iterdir())
    path = save(failures, 2, tmp_path)
    assert list(csv.reader(io.StringIO(path.read_text(), newline=""))) == [["file", "reason"], list(failures[0][:2])]
    save([], 2, tmp_path)
    assert not path.exists()


def test_where_nothing_can_be_written_no_table_is_tried(tmp_path):
    failure = Failure.of("a.nii", OutputError("out/a.nii.gz: cannot be written"))
    assert failure.final and save([failure], 2, tmp_path / "gone") is None
