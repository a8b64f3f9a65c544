"""Files that are whole or not there, also when the run was killed, the disk is full or two runs share a folder."""

import contextlib
import contextvars
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

_PREFIX, _SUFFIX = ".spcdd-", ".part"  # of temporary files
_GROUP: contextvars.ContextVar[list | None] = contextvars.ContextVar("group", default=None)  # of `together`
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``: it takes its place when the block ends well, and is removed when not.

    What a killed run left in that folder is removed too. A temporary file is locked as long as its writer lives, so
    that of another run is left alone.

    Raises:
        OutputError: the file system refuses; ``path`` is then what it was before.
    """
    path = Path(path)
    with _readable_errors(path), contextlib.ExitStack() as stack:
        remove_left_over(path.parent)
        temporary, lock = _temporary(path.parent)
        stack.callback(os.close, lock)
        stack.callback(temporary.unlink, missing_ok=True)
        yield temporary
        _to_disk(temporary)
        group = _GROUP.get()
        if group is None:
            os.replace(temporary, path)
        else:
            group.append((temporary, path, stack.pop_all()))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within the block, files get their names when it ends, all in the order of their writing, or none does.

    Raises:
        OutputError: the file system refuses.
    """
    group: list[tuple[Path, Path, contextlib.ExitStack]] = []
    token = _GROUP.set(group)
    try:
        yield
        for temporary, path, _ in group:
            with _readable_errors(path):
                os.replace(temporary, path)
    finally:
        _GROUP.reset(token)
        for _, _, stack in group:
            stack.close()


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        todo = "make room" if error.errno in _FULL else "look at the folder and its rights"
        message = f"{path}: cannot be written ({error.strerror or error}); {todo} or choose another output folder"
        raise OutputError(message) from error


def remove_left_over(folder: Path) -> None:
    """Remove temporary files whose writer is gone; those of a writer that lives are locked and stay."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # locked, gone already, or a file system without locks
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)


def _temporary(folder: Path) -> tuple[Path, int]:
    """A new temporary file, and the open file that holds its lock."""
    while True:
        path = folder / f"{_PREFIX}{uuid.uuid4().hex[:12]}{_SUFFIX}"
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # removed by another run before it was locked
            if os.path.samestat(path.stat(), os.fstat(file)):
                return path, file
        os.close(file)


def _to_disk(path: Path) -> None:
    """Have the file on its disk before it gets its name; file servers tell only then that they are full."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
