"""made_from.json: what a product was made from, by the content of its inputs, so that it can be told when that changes.

Every command writes it into what it makes, an entry a command: `fit` and `test` of a run share a folder. Settings stand
there where no file of the product's own keeps them, as a run's `fit.yaml` does. No torch.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from dermsynth.files import reading, write_atomically

FILE = "made_from.json"
#: What a stage reads, by its key in the configuration.
INPUTS = (
    "ckpt_path",
    "data.init_args.real",
    "data.init_args.synthetic",
    "model.init_args.base",
    "model.init_args.model",
)
#: What says where a product lies or how fast it is made, and not what it becomes.
_NO_SETTINGS = ("out", "processes")
_TABLES = (".csv", ".tsv", ".tab", ".txt", "")  # suffixes of what `prepare` reads; HAM10000 has a table without
_TABLE = "metadata.csv"  # of an image set; it holds the hash of every image


class Entry(TypedDict, total=False):
    """What one command wrote: the hash of each input by its role, and the settings if they stand nowhere else."""

    inputs: dict[str, str]
    settings: dict[str, Any]


def read(folder: Path) -> dict[str, Entry]:
    """The entries in a product's folder; none where there is no file, or one that cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return {name: cast(Entry, entry) for name, entry in content.items() if isinstance(entry, dict)}
    return {}


def write(folder: Path, command: str, entry: Entry | None) -> None:
    """Keep what a command made the folder's content from; None takes its entry away."""
    entries = read(folder)
    before = entries.pop(command, None)
    if entry is not None:
        entries[command] = entry
    if entry != before:  # so that nothing is written where nothing changes
        write_atomically(folder / FILE, json.dumps(entries, indent=2) + "\n")


def settings(arguments: Mapping[str, Any], inputs: Collection[str] = ()) -> dict[str, Any]:
    """What a tool was told, as JSON keeps it.

    Args:
        arguments: by their names.
        inputs: names of those that are known by their content.
    """
    told = {name: value for name, value in arguments.items() if name not in (*_NO_SETTINGS, *inputs)}
    plain: dict[str, Any] = json.loads(json.dumps(told, default=_plain))
    return plain


def stage_inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """The inputs of fit, test or predict.

    Args:
        config: the stage's whole configuration, as plain values.

    Returns:
        The hash of each by its key, lists numbered through; a base that is named by its hub id, or as `tiny`, by that.
    """
    found: dict[str, str] = {}
    for key in INPUTS:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        short = key.replace(".init_args", "")
        if isinstance(value, list):
            found |= {f"{short}.{number}": content(Path(item)) for number, item in enumerate(value)}
        elif isinstance(value, str | Path):
            found[short] = content(Path(value))
    return found


def content(path: Path) -> str:
    """A hash of what a command reads there.

    Args:
        path: an image set, known by its table; a file; another folder, known by all its files; or a name.
    """
    with reading(path):
        if (path / _TABLE).is_file():
            return _file(path / _TABLE)
        if path.is_dir():
            parts = [f"{file.relative_to(path)} {_file(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
            return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
        return _file(path) if path.is_file() else f"named {path}"


def source(folder: Path) -> str:
    """A hash of a download: the names and sizes of its files, and the content of its tables.

    Images are known by their size, as `prepare` knows them: to read them all again would take as long as preparing.
    """
    parts = []
    with reading(folder):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != FILE:
                known = _file(file) if file.suffix.lower() in _TABLES else str(file.stat().st_size)
                parts.append(f"{file.relative_to(folder)} {known}")
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def changes(there: Entry | None, here: Entry) -> list[str]:
    """What differs between what a product was made from and what it would be made from now, as phrases."""
    if there is None:
        return [f"its {FILE} does not say what it was made from"]
    found = []
    old, new = there.get("settings", {}), here.get("settings", {})
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            found.append(f"{key}: {old.get(key)} there, {new.get(key)} here")
    before, now = there.get("inputs", {}), here.get("inputs", {})
    return found + [f"another content of {role}" for role in {**before, **now} if before.get(role) != now.get(role)]


def _file(path: Path) -> str:
    status = path.stat()
    return _hash(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.cache
def _hash(path: Path, size: int, changed: int) -> str:
    """Of a file as it is known by its size and time of change, so that a large one is read once a process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
