"""The exceptions that a user is meant to read."""


class InputError(ValueError):
    """An input that is refused: the message says which file, what is wrong, what is allowed and what to do.

    It is always one line: characters of a file's name that would break it (newlines, control characters) are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class OutputError(InputError):
    """A result that could not be written; what comes after it could not be either, so a cohort ends there."""


def one_line(text: str) -> str:
    """Text with what cannot be printed written as an escape: a newline as ``\\n``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
