"""A part of a study file, read key by key; what is wrong is one line that names the file and the key."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermsynth.errors import InputError
from dermsynth.run.config_checks import given_path
from dermsynth.run.yaml_files import line_of

_MOST_SEED = 2**32 - 1  # of numpy


def mistake(file: Path, key: str, text: str) -> InputError:
    """An error in a study file.

    Args:
        file: the study file.
        key: dotted; blank for the whole file.
        text: what is wrong, and what to do.
    """
    line = line_of(file, key) if key else 0
    return InputError(f"{file}{f', line {line}' if line else ''}: {f'{key}: ' if key else ''}{text}")


class Section:
    """The mapping under a key.

    Args:
        file: the study file.
        key: dotted, of the mapping; blank for the whole file.
        content: as read from YAML.
        known: keys that it may have; None for any.
        required: keys that it must have.
        dotted: whether keys with a dot, which are flags, may stand beside the known ones.
    """

    def __init__(
        self,
        file: Path,
        key: str,
        content: Any,
        known: Sequence[str] | None = None,
        required: Sequence[str] = (),
        dotted: bool = False,
    ) -> None:
        self.file, self.key = file, key
        if not isinstance(content, dict):
            raise self.error("", f"expected keys with values, found {_shown(content)}.")
        self.content: dict[str, Any] = content
        for name in content:
            if not isinstance(name, str):
                raise self.error("", f"the name {name} is no text; put it in quotes.")
            if known is not None and name not in known and not (dotted and "." in name):
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
                raise self.error(name, f"no such key. {hint}")
        if missing := [name for name in required if name not in content]:
            raise self.error(missing[0], "it must be given.")

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def path(self, name: str) -> str:
        """The dotted key of one of its keys; its own for a blank."""
        return ".".join(part for part in (self.key, name) if part)

    def error(self, name: str, text: str) -> InputError:
        """A mistake under one of its keys."""
        return mistake(self.file, self.path(name), text)

    @contextmanager
    def saying(self, name: str) -> Iterator[None]:
        """Name the file and one of its keys in a ValueError on the value."""
        try:
            yield
        except ValueError as error:
            raise self.error(name, str(error)) from error

    def section(self, name: str, known: Sequence[str] | None = None, required: Sequence[str] = ()) -> "Section":
        """The mapping under one of its keys; an empty one where it is not given. For the arguments see the class."""
        return Section(self.file, self.path(name), self.content.get(name, {}), known, required)

    def mapping(self, name: str) -> dict[str, Any]:
        """The same as a plain mapping whose keys are names."""
        return dict(self.section(name).content)

    def text(self, name: str) -> str:
        """A text that is given and not blank."""
        value = self.content[name]
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, f"expected a name, found {_shown(value)}.")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """One text or a list of them; none where it is not given."""
        value = self.content.get(name, [])
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) and item.strip() for item in values):
            raise self.error(name, f"expected a name or a list of names, found {_shown(value)}.")
        return tuple(values)

    def given_paths(self, name: str) -> tuple[Path, ...]:
        """One path or a list of them, as every command takes them; none where it is not given."""
        return tuple(self.given_path(name, text) for text in self.texts(name))

    def given_path(self, name: str, text: str) -> Path:
        """The path that is written under one of its keys, or within it."""
        with self.saying(name):
            return given_path(text)

    def seeds(self, name: str) -> tuple[int, ...]:
        """Whole numbers, each once; 0 where none is given."""
        value = self.content.get(name, [0])
        values = value if isinstance(value, list) else [value]
        numbers = [item for item in values if isinstance(item, int) and not isinstance(item, bool)]
        if not values or len(numbers) < len(values) or not all(0 <= seed <= _MOST_SEED for seed in numbers):
            raise self.error(
                name, f"expected whole numbers from 0 to {_MOST_SEED}, as [0, 1, 2]; found {_shown(value)}."
            )
        if len(set(numbers)) < len(numbers):
            raise self.error(name, f"a seed is given twice: {_shown(value)}.")
        return tuple(numbers)

    def number(self, name: str) -> int | None:
        """A whole number from 1, or None where it is not given."""
        value = self.content.get(name)
        if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise self.error(name, f"expected a whole number from 1, found {_shown(value)}.")
        return value

    def real(self, name: str) -> float:
        """A number that is given."""
        value = self.content[name]
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)  # also of a text: YAML takes 1e-2, without a point, for one
        except (TypeError, ValueError) as error:
            raise self.error(name, f"expected a number, found {_shown(value)}.") from error

    def flags(self, name: str) -> dict[str, Any]:
        """Flags of a command by their names without `--`."""
        found = self.mapping(name)
        for key in found:
            if not key or key.startswith("-") or any(letter.isspace() or letter == "=" for letter in key):
                raise self.error(f"{name}.{key}", "flags are given by their names, without `--`.")
        return found

    def dotted_flags(self) -> dict[str, Any]:
        """Its keys with a dot, which are flags."""
        return {name: value for name, value in self.content.items() if "." in name}


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
