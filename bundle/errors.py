"""The exceptions that a user is meant to read."""


class InputError(ValueError):
    """An input that is refused: the message says which file, what is wrong, what is allowed and what to do."""


class OutputError(InputError):
    """A result that could not be written; what comes after it could not be either, so a cohort ends there."""
