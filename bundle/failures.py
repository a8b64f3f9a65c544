"""What went wrong with which volume of a cohort: one line for one, a table for many."""

import csv
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import InputError, OutputError, one_line
from .memory import is_out_of_memory
from .writing import replacing

TABLE = "failures.csv"


class Failure(NamedTuple):
    """A volume without result; ``final`` where what comes after it would fail too."""

    path: str
    reason: str
    final: bool = False

    @classmethod
    def of(cls, path: str, error: BaseException) -> "Failure":
        """What a user is told of an error, which may be wrapped in others; of an unexpected one the way there too."""
        known = refusal(error)
        if known is None:
            traceback.print_exception(error)
            known = InputError(f"unexpected {type(error).__name__}: {error}; please report this")
        return cls(path, one_line(str(known)).removeprefix(f"{one_line(path)}: "), isinstance(known, OutputError))

    def __str__(self) -> str:
        name = Path(self.path).name
        return self.reason if self.final or name in self.reason else f"{one_line(self.path)}: {self.reason}"


def refusal(error: BaseException | None) -> InputError | None:
    """The refusal behind an error that MONAI has wrapped, if there is one."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        if isinstance(error, OSError) and error.strerror:
            return InputError(f"{error.filename or 'output'}: {error.strerror}")
        if is_out_of_memory(error):
            return InputError("not enough memory; choose a smaller --max_memory or a larger --target_spacing")
        error = error.__cause__
    return None


def summary(failures: Sequence[Failure], total: int, undone: int = 0) -> str:
    """The last words of a run: one line for one volume, else a table with a column of files and one of reasons."""
    if total == 1:
        return f"error: {failures[0]}"
    width = max(len(one_line(f.path)) for f in failures)
    rows = [f"  {one_line(f.path):{width}}  {f.reason}" for f in failures]
    rest = f", and {undone} were not begun" if undone else ""
    return "\n".join([f"error: {len(failures)} of {total} volumes were refused{rest}", *rows])


def save(failures: Sequence[Failure], total: int, folder: str | Path) -> Path | None:
    """Write ``failures.csv`` of a cohort with failures; remove that of an earlier run where there are none."""
    path = Path(folder) / TABLE
    if not failures:
        path.unlink(missing_ok=True)
    if not failures or total == 1 or any(f.final for f in failures):
        return None
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "reason"))
        writer.writerows(f[:2] for f in failures)
    return path
