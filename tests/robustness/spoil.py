"""Ways to spoil a good input; each returns a function that does it in a case's folder."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Spoil = Callable[[Path], None]
DELETED = object()


def both(first: Spoil, second: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        first(folder)
        second(folder)

    return spoil


def write(path: str, content: str | bytes) -> Spoil:
    """A file, whatever was there."""

    def spoil(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def change(path: str, how: Callable[[bytes], bytes]) -> Spoil:
    """A file's bytes."""
    return lambda folder: (folder / path).write_bytes(how((folder / path).read_bytes())) and None


def zeros(path: str) -> Spoil:
    """The middle third of a file set to zero."""
    return change(path, lambda b: b[: len(b) // 3] + bytes(len(b) // 3) + b[2 * (len(b) // 3) :])


def cut(path: str) -> Spoil:
    """Half of a file."""
    return change(path, lambda b: b[: len(b) // 2])


def fifo(path: str) -> Spoil:
    """A pipe that nobody writes to in the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        os.mkfifo(folder / path)

    return spoil


def folder(path: str) -> Spoil:
    """A folder in the place of a file."""

    def spoil(root: Path) -> None:
        (root / path).unlink(missing_ok=True)
        (root / path).mkdir()

    return spoil


def file(path: str) -> Spoil:
    """A file in the place of a folder."""

    def spoil(root: Path) -> None:
        shutil.rmtree(root / path)
        (root / path).write_bytes(b"")

    return spoil


def remove(path: str) -> Spoil:
    """A file or folder that is not there."""
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def link(path: str, target: str) -> Spoil:
    """A symbolic link in the place of a file."""

    def spoil(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(target)

    return spoil


def rows(path: str, how: Callable[[list[dict[str, str]]], Any]) -> Spoil:
    """The rows of a CSV, changed in place or replaced by what is returned."""

    def spoil(root: Path) -> None:
        with (root / path).open(encoding="utf-8", newline="") as table:
            found = list(csv.DictReader(table))
        changed = how(found)
        found = changed if isinstance(changed, list) else found
        with (root / path).open("w", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, list(found[0]) if found else ["image_id"])
            writer.writeheader()
            writer.writerows(found)

    return spoil


def cell(path: str, column: str, value: str, every: bool = False) -> Spoil:
    """A cell of the second row, or of every row."""

    def how(found: list[dict[str, str]]) -> None:
        for row in found if every else found[1:2]:
            row[column] = value

    return rows(path, how)


def item(path: str, key: str, value: Any) -> Spoil:
    """A key of a JSON object."""

    def spoil(root: Path) -> None:
        content = json.loads((root / path).read_text(encoding="utf-8"))
        content.pop(key, None) if value is DELETED else content.update({key: value})
        (root / path).write_text(json.dumps(content), encoding="utf-8")

    return spoil


def weights(path: str, how: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    """The tensors of a safetensors file, changed in place or replaced by what is returned."""

    def spoil(root: Path) -> None:
        tensors = load_file(root / path)
        changed = how(tensors)
        kept = changed if isinstance(changed, dict) else tensors
        save_file({name: tensor.contiguous().clone() for name, tensor in kept.items()}, root / path, {"format": "pt"})

    return spoil


def checkpoint(path: str, how: Callable[[dict[str, Any]], Any]) -> Spoil:
    """The content of a checkpoint, changed in place or replaced by what is returned."""

    def spoil(root: Path) -> None:
        content = torch.load(root / path, weights_only=True)
        changed = how(content)
        torch.save(content if changed is None else changed, root / path)

    return spoil
