"""The one exception that users are meant to see."""


class MaskcastError(Exception):
    """A user's mistake or a broken input, said in one line.

    The line names the file or the key, what is allowed, and the remedy. The command line prints it after
    ``error:`` and exits with 2; nothing is left behind.
    """
