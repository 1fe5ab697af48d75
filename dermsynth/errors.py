"""The one exception that means: the user's input is wrong, and this is how to mend it."""


class InputError(Exception):
    """A mistake in a file, row or flag; the command line prints its message without a traceback.

    The message names the file, row or flag, what was found, and what to do. It is no ValueError, because jsonargparse
    takes those for a value of the wrong type and wraps them in a message of its own.
    """
