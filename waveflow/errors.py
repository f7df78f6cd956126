"""The error that tells a user what to change."""


class InputError(ValueError):
    """Something the caller gave cannot be used: a file, a mel, a preset name, a flag.

    The message is one line that says what was expected and what came. The command line and the recipes print
    it without a traceback and leave with exit code 2.
    """
