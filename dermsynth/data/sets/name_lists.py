"""How messages say a list that may be long."""

from collections.abc import Iterable


def some(names: Iterable[str], first: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    everything = list(names)
    more = len(everything) - first
    return ", ".join(everything[:first]) + (f" and {more} more" if more > 0 else "")
