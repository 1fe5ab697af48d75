"""Named tensors in memory-mapped files that are only ever added to."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dermsynth.errors import InputError
from dermsynth.files import make_folder, whole_file

_TENSOR, _NAMES = "values", "names"
_FORMAT = 1
_ABANDONED = 3600  # seconds


class Shelf:
    """Tensors of one shape that one frozen model made; what it made them of is their name.

    A file holds some of them and is named by a hash of their names. What was made of another model, or otherwise, lies
    in another folder, so nothing here is ever out of date.

    Args:
        folder: of all shelves.
        kind: what the tensors are, the beginning of the name of this one's folder.
        made_by: whatever they depend on beside their names; its hash is the rest of that name.
    """

    def __init__(self, folder: Path, kind: str, made_by: Mapping[str, object]) -> None:
        self.folder = folder / f"{kind}-{_hash(json.dumps({'format': _FORMAT, **made_by}, sort_keys=True))}"
        self._numbers: dict[Path, int] = {}
        self._open: dict[int, Any] = {}

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where each tensor lies: file and row, int64 `[N, 2]`; -1 for one that is not there."""
        places: dict[str, tuple[int, int]] = {}
        for file in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                with safe_open(file, "pt") as content:
                    held = json.loads((content.metadata() or {})[_NAMES])
            except (SafetensorError, OSError, KeyError, ValueError):
                continue  # what a power failure left of it, or none of ours; its tensors are made again
            number = self._numbers.setdefault(file, len(self._numbers))  # those that were given stay
            places |= {name: (number, row) for row, name in enumerate(held)}
        return np.array([places.get(name, (-1, -1)) for name in names], np.int64).reshape(-1, 2)

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """As `find`, for tensors that must be there.

        Raises:
            InputError: one is not.
        """
        places = self.find(names)
        absent = [name for name, (file, _) in zip(names, places.tolist(), strict=True) if file < 0]
        if absent:
            raise InputError(
                f"data.latent_cache: {self.folder} lost {len(absent)} of {len(names)} entries, such as {absent[0]!r}. "
                "Was it deleted during the run? Give the same command again: what is missing is computed again."
            )
        return places

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names, each once, that are not there."""
        absent = (self.find(names)[:, 0] < 0).tolist()
        return list(dict.fromkeys(name for name, gone in zip(names, absent, strict=True) if gone))

    def add(self, names: Sequence[str], tensors: Tensor) -> None:
        """Write tensors `[N, …]` as one file, whole or not at all.

        Raises:
            InputError: a number in them is not finite, or the disk is full.
        """
        if not tensors.isfinite().all():
            raise InputError(
                f"data.latent_cache: the frozen parts of model.base give numbers that {tensors.dtype} cannot hold, so "
                "their weights are broken. Give another base."
            )
        held = json.dumps(list(names))
        content = save({_TENSOR: tensors.contiguous()}, {_NAMES: held})
        make_folder(self.folder)
        with whole_file(self.folder / f"{_hash(held)}.safetensors") as file:
            file.write(content)

    def delete_left_overs(self) -> None:
        """Delete what killed processes left of files that they were writing, an hour ago or longer.

        Another run may be adding to the same shelf: it writes a file in seconds, so what is younger may be its own.
        """
        for left_over in self.folder.glob(".*.part"):
            with suppress(OSError):  # it was renamed or deleted meanwhile, or belongs to somebody else
                if time.time() - left_over.stat().st_mtime > _ABANDONED:
                    left_over.unlink()

    def __getitem__(self, place: Sequence[int]) -> Tensor:
        """The tensor at a place that `find` gave; a view of the file."""
        number, row = int(place[0]), int(place[1])
        if number not in self._open:
            self._open[number] = safe_open(list(self._numbers)[number], "pt").get_slice(_TENSOR)
        return self._open[number][row]

    def __getstate__(self) -> dict[str, object]:
        # A loader process that is spawned opens the files itself.
        return {**vars(self), "_open": {}}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
