"""What a command line may not say. Imports nothing heavy, so that help stays instant."""

from typing import Any

from .errors import InputError


def refuse_code(value: Any) -> None:
    """Refuse what a config would run or look up: `$`, `@` and `%` at the head of a text, and keys such as `_target_`.

    Args:
        value: as it came from the command line; lists and dictionaries are searched.

    Raises:
        InputError: it is there.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("$", "@", "%"):
        raise InputError(f"{value!r}: expressions are not taken from the command line; a file's name is ./{value}")
    if isinstance(value, dict) and any(str(key).startswith("_") for key in value):
        raise InputError(f"{value!r}: components are not taken from the command line")
    if isinstance(value, dict | list | tuple | set):
        for part in (*value, *(value.values() if isinstance(value, dict) else ())):
            refuse_code(part)
