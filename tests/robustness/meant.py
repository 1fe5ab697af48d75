"""Values that look like nonsense and are not, each with its reason; of all others an error is expected."""

from fnmatch import fnmatchcase

from tests.robustness.case import Expected

#: The end of a generated case's name, as a pattern in which [ is itself; why it is taken, or may be.
MEANT: dict[str, str] = {}


def expected(name: str) -> Expected:
    """What should come of a generated case."""
    return "either" if any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in MEANT) else "refused"
