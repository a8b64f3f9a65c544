"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """An input that is refused: the message says which file, what is wrong, what is allowed and what to do."""
