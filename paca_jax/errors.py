"""The one error that a user's input can cause anywhere in the library."""


class UserError(ValueError):
    """A bad name, shape, option or file, told in one sentence.

    The message says what was expected, what came, and what to do. `main.py` and the other command lines print it without a
    traceback and exit with status 2; in a notebook it is an ordinary `ValueError`.
    """
