"""A seam: where this package uses what a library does not promise, checked before it is used."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from types import CodeType, ModuleType
from typing import Any

from dermsynth.errors import InputError


class SeamError(InputError):
    """A library has no longer what a seam relies on.

    Args:
        seam: the function that relies on it.
        library: by the name that it is installed by.
        lacking: what it lacks, as the end of a sentence.
    """

    def __init__(self, seam: str, library: str, lacking: str) -> None:
        super().__init__(
            f"{library} {version(library)} {lacking}, on which {seam} relies. Install a version of {library} that this "
            "package was tested with (constraints.txt)."
        )


def part_of(seam: str, library: str, module: str) -> ModuleType:
    """A module of a library that it does not promise.

    Args:
        seam: the function that relies on it.
        library: by the name that it is installed by.
        module: its dotted name.

    Raises:
        SeamError: it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SeamError(seam, library, f"has no module {module}") from error


def relied_on(
    seam: str,
    library: str,
    owner: object,
    name: str,
    takes: Sequence[str] | None = None,
    used_by: Callable[..., Any] | None = None,
) -> Any:
    """What a library has under a name that it does not promise.

    Args:
        seam: the function that relies on it.
        library: by the name that it is installed by.
        owner: module, class or object.
        name: of the attribute.
        takes: names of the parameters of a function or bound method; not looked at by default.
        used_by: a function of the library that must name the attribute, as replacing it would be in vain otherwise.

    Raises:
        SeamError: it is not there, takes something else, or is not used.
    """
    where = f"{_name(owner)}.{name}"
    if not hasattr(owner, name):
        raise SeamError(seam, library, f"has no {where}")
    found = getattr(owner, name)
    if takes is not None and list(inspect.signature(found).parameters) != list(takes):
        raise SeamError(seam, library, f"has a {where} that takes other than ({', '.join(takes)})")
    if used_by is not None:
        named_by(seam, library, used_by, name)
    return found


def named_by(seam: str, library: str, function: Callable[..., Any], name: str) -> None:
    """Check that a function of a library still speaks of an attribute.

    Args:
        seam: the function that relies on it.
        library: by the name that it is installed by.
        function: of the library.
        name: of the attribute.

    Raises:
        SeamError: it does not.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or name not in _names(code):
        raise SeamError(seam, library, f"does not use {name} in {function.__qualname__}")


def _name(owner: object) -> str:
    if isinstance(owner, ModuleType):
        return owner.__name__
    return owner.__qualname__ if isinstance(owner, type) else type(owner).__qualname__


def _names(code: CodeType) -> Iterator[str]:
    """Attributes and words in a function, and in functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names(constant)
