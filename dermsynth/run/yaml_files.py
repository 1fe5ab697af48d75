"""YAML files that users write, read within limits: no key twice, no bomb, no file that never ends. No torch."""

from pathlib import Path
from typing import Any

import yaml

from dermsynth.errors import InputError
from dermsynth.files import reading

_MOST_BYTES = 1_000_000
_MOST_VALUES = 10_000  # with each alias counted as all that it stands for
_DEEPEST = 50


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a configuration file.

    Raises:
        InputError: it is not there, no file, not YAML with keys, gives a key twice, or is larger than any
            configuration.
    """
    with reading(path):
        if path.exists() and not path.is_file():  # reading a pipe would wait forever
            raise InputError(f"{path}: not a file.")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes; no configuration is that large.")
    try:
        content = parse_yaml(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8.") from error
    if not isinstance(content, dict) or not content:
        found = "nothing" if not content else f"a {type(content).__name__}"
        raise InputError(f"{path}: it holds {found}; expected keys with values, such as `seed_everything: 0`.")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Plain values from YAML.

    Args:
        text: YAML.
        where: the file or flag, for a message.

    Raises:
        InputError: it is not YAML, gives a key twice, or is nested deeper or stands for more than any configuration.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise InputError(f"{where}: nested more than {_DEEPEST} deep; no configuration is.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _values(node, where, {}) > _MOST_VALUES:
            raise InputError(f"{where}: its aliases stand for more than {_MOST_VALUES:,} values.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{where}: not YAML: {line}{getattr(error, 'problem', None) or _one_line(error)}.") from error
    except ValueError as error:  # a value that is none of its own kind, such as the 31st of February
        raise InputError(f"{where}: not YAML: {_one_line(error)}.") from error


def line_of(path: Path, key: str) -> int:
    """The line in which a dotted key stands in a file that was read, or as much of it as is there; 0 for none of it."""
    node, line = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), 0
    while isinstance(node, yaml.MappingNode):
        # A flag is one key with dots in it.
        found = [pair for pair in node.value if f"{key}.".startswith(f"{pair[0].value}.")]
        if not found:
            break
        name, node = found[0]
        line, key = name.start_mark.line + 1, key[len(name.value) + 1 :]
    return line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _values(node: yaml.Node, where: str, known: dict[int, int]) -> int:
    """How many values a node stands for; each alias is looked at once.

    Args:
        node: of a tree in which an alias is the node itself.
        where: the file or flag.
        known: the same of nodes by their id; -1 of those that are being counted.
    """
    if id(node) in known:
        if known[id(node)] < 0:
            raise InputError(f"{where}, line {node.start_mark.line + 1}: an alias within what it stands for.")
        return known[id(node)]
    known[id(node)] = -1
    count = 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if isinstance(key, yaml.ScalarNode) and name in lines:
                raise InputError(
                    f"{where}: the key {name!r} is given twice, in lines {lines[name]} and {line}. Leave one out."
                )
            lines[name] = line
            count += _values(value, where, known)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_values(item, where, known) for item in node.value)
    known[id(node)] = count
    return count
