"""The exceptions that mean: the user's input is wrong, and this is how to fix it."""


class InputError(Exception):
    """A mistake in a file, row or flag; the command line prints its message without a traceback.

    The message names the file, row or flag, what was found, and what to do. It is no ValueError, because jsonargparse
    takes those for a value of the wrong type and wraps them in a message of its own.
    """


class BrokenImageError(InputError):
    """One image file that cannot be used; of many files, one such is left out and listed.

    Args:
        where: the file.
        reason: what is wrong with it, without the file's name. Blank where a DataLoader's worker process raised it:
            torch makes the exception again with the whole traceback as its one argument.
    """

    def __init__(self, where: object, reason: str = "") -> None:
        super().__init__(where, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.reason}" if self.reason else str(self.args[0])
