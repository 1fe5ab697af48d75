"""One bad input: what is spoilt, the command that meets it, and what should come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: `refused`: one message and a status that is not 0. `accepted`: a status of 0, because the value has a meaning.
#: `either`: what it means depends on the machine or is a matter of taste, but it neither breaks nor hangs.
Expected = Literal["refused", "accepted", "either"]


@dataclass(frozen=True)
class Case:
    """A command in a folder of its own, which holds a copy of the good inputs (`tests.robustness.world`).

    Args:
        name: what is tried, unique, as `fit vit --model.label_smoothing=nan`.
        argv: the command and its arguments; paths are relative to the folder.
        spoil: makes the bad input out of the good ones; called in the folder.
        expected: what should come of it.
    """

    name: str
    argv: tuple[str, ...]
    spoil: Callable[[Path], None] | None = None
    expected: Expected = "refused"
