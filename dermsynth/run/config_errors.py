"""What is wrong with a command line or a configuration file, said in one message.

jsonargparse reports a misspelt key from the outside in, level by level, and names neither the file nor
the right key.
"""

import difflib
import pydoc
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from jsonargparse import ArgumentParser

_IN_CLASS = re.compile(r"Problem with given class_path '([^']+)':\s+Option '([^']+)' is not accepted")
_NO_CLASS = re.compile(r"Problem with given class_path '([^']+)':\s+(.* has no attribute .*|No module named .*)")
_EIGHT_BIT = re.compile(r"No module named 'bitsandbytes'.*class_path='?\"?(bitsandbytes[\w.]*)", re.DOTALL)
_AT_TOP = re.compile(r"does not accept option '([^']+)'|unrecognized arguments: --([^\s=]+)")
_KEY = re.compile(r'Parser key "([^"]+)"')
_REQUIRED = re.compile(r"(?:Problem with given class_path '([^']+)':\s+)?the following arguments are required: (.+)")
# What jsonargparse says of its own workings, and the alternative that nothing is given.
_EXPECTED = re.compile(r"(?:Expected an?|or) (<class '[^']+'>|typing\.Literal\[[^\]]*\]|dot import path)")
_OWN = re.compile(r'Parser key "[^"]+"|^Not of type \w+: |^Type .* callable class: |\. Got value: .*')
_LITERAL = re.compile(r"typing\.Literal\[(.*)\]")
_VALUE = re.compile(
    r"(?:Got value: |, val=|Given value: |Expected a path but )(.*?)(?: either not accessible.*|\)?\.?$)", re.M
)
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "Sequence": "a list",
    "tuple": "a list",
    "dict": "keys with values",
}
_NOISE = re.compile(r"\s*(Does not validate|Subtypes:|Errors:|- Expected a <class 'NoneType'>|Given value)")


def explain(message: str, keys: Sequence[str], arguments: Sequence[str]) -> str:
    """Say what jsonargparse found, where it stands, and the nearest right name.

    Args:
        message: of jsonargparse's error.
        keys: dotted names of the flags that the parser knows.
        arguments: the command and all that was given to it.
    """
    if found := _IN_CLASS.search(message):
        owner, key = found.group(1), found.group(2).split(".")[0]
        choices = [*_parameters(owner), "class_path", "init_args"]
        if owner.endswith(("LightningModule", "LightningDataModule")) and not _near(key, choices):
            place = _place(key, arguments, earliest=True)
            return f"{place}{key!r} is given before the class that takes it. Put overlays after their recipe."
        return f"{_place(key, arguments)}{owner} has no parameter {key!r}. {_nearest(key, choices)}"
    if found := _EIGHT_BIT.search(message):
        return f"{_place(found.group(1), arguments)}{found.group(1)} needs bitsandbytes: pip install bitsandbytes."
    if found := _NO_CLASS.search(message):
        path, reason = found.groups()
        module, _, name = path.rpartition(".")
        names = [n for n in dir(pydoc.locate(module)) if not n.startswith("_")]
        near = _nearest(name, names) if len(names) and module else ""
        return f"{_place(path, arguments)}no class {path!r} ({reason}). {near}".rstrip()
    if found := _AT_TOP.search(message):
        owner, key, choices = _first_unknown(found.group(1) or found.group(2), keys)
        return f"{_place(key, arguments)}{owner} has no key {key!r}. {_nearest(key, choices)}"
    if found := _REQUIRED.search(message):
        owner, names = found.group(1), found.group(2).split(", ")
        if owner:
            return f"{owner} needs {', '.join(names)}; give it in the configuration or as a flag."
        names = [name.removeprefix(f"{arguments[0]}.") for name in names]
        missing = ", ".join(f"--{name}" if name in keys else name for name in names)
        how = ", as flags or by --config FILE" if "model" in keys else ""
        return f"{arguments[0]}: {missing} must be given{how}. See `python -m dermsynth {arguments[0]} --help`."
    return _in_one_line(message, arguments)


def _in_one_line(message: str, arguments: Sequence[str]) -> str:
    """Where a value stands, the value, and what is expected, of what jsonargparse says in many lines of its own."""
    names = [name.removeprefix(f"{arguments[0]}.") for name in _KEY.findall(message)]
    where, key = (_place(names[-1].split(".")[-1], arguments) if names else ""), ".".join(names)
    if not where.startswith("--"):
        where += f"{key or arguments[0]}: "
    given = [*_files_of(arguments), *arguments]
    # Only what was given itself: a class's name may be a file, whose content jsonargparse would show.
    values = [found.strip("'\"") for found in _VALUE.findall(message)]
    shown = next((value for value in values if len(value) <= 80 and any(value in text for text in given)), "")
    expected = list(dict.fromkeys(_type_name(found) for found in _EXPECTED.findall(message)))
    expected = [name for name in expected if name]
    if expected:
        return f"{where}{shown or 'this value'} is not {' or '.join(expected)}."
    lines = [line.strip(" -") for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    last = next((line for line in reversed(lines) if not line.endswith(":")), lines[-1])
    return f"{where}{_OWN.sub('', last).lstrip(': ')[:300]}"


def _type_name(text: str) -> str:
    """What is expected, as users say it; blank for an alternative that is none of theirs."""
    if found := _LITERAL.fullmatch(text):
        return "one of " + found.group(1).replace("'", "")
    if text.startswith("dot import path"):
        return "the path of a class, such as torch.optim.AdamW"
    return _TYPES.get(text.removeprefix("<class '").removesuffix("'>").rpartition(".")[2], "")


def _first_unknown(dotted: str, keys: Iterable[str]) -> tuple[str, str, list[str]]:
    """Who refuses which part of a dotted key, and what could stand there."""
    owner = ""
    for part in dotted.split("."):
        choices = {key.removeprefix(owner).split(".")[0] for key in keys if key.startswith(owner)}
        if part not in choices:
            break
        owner += f"{part}."
    return owner.rstrip(".") or "the command", part, sorted(choices)


def _parameters(class_path: str) -> list[str]:
    """Names that a class takes, with those that it hands on as `**kwargs`."""
    parser = ArgumentParser(exit_on_error=False)
    return parser.add_class_arguments(pydoc.locate(class_path), fail_untyped=False)


def _near(name: str, choices: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, choices, 1)


def _nearest(name: str, choices: Sequence[str]) -> str:
    near = _near(name, choices)
    return f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(choices)}."


def _place(word: str, arguments: Sequence[str], earliest: bool = False) -> str:
    """The flag, or file and line, where a key or class is given, by default the last; blank if it is not found."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag.startswith("--") and (flag.endswith((f".{word}", f"-{word}")) or value == word):
            return f"{flag}: "
    files = config_files(arguments)
    for file in files if earliest else reversed(files):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", line.partition("#")[0]):
                return f"{file}, line {number}: "
    return ""


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Configuration files that are given."""
    pairs = [*pairwise(arguments), *(argument.partition("=")[::2] for argument in arguments)]
    return [Path(pair[1]).expanduser() for pair in pairs if pair[0] in ("-c", "--config") and pair[1]]


def _files_of(arguments: Sequence[str]) -> list[str]:
    return [file.read_text(encoding="utf-8") for file in config_files(arguments)]
