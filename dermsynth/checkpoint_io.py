"""How checkpoints reach the disk: whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from dermsynth.divergence import refuse_broken_weights
from dermsynth.errors import InputError
from dermsynth.files import make_folder, whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, waits for the disk and renames; a kill or a full disk leaves the checkpoint before.

    Lightning's own way builds the file in memory and then in `$TMPDIR`, from where it is copied over the old one if
    that is another file system: a kill in that moment leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; see the class.

        Args:
            checkpoint: what to write.
            path: where to.
            storage_options: of other plugins; must not be given.

        Raises:
            InputError: weights are not finite, the disk is full, or the place cannot be written to; the old file is as
                it was.
        """
        if storage_options is not None:
            raise TypeError("storage_options: a checkpoint is one file on a disk and has none.")
        refuse_broken_weights(checkpoint)
        path = Path(path)
        make_folder(path.parent)
        try:
            with whole_file(path) as file:
                _save(checkpoint, file)
        except InputError as error:
            kept = "The one that was there before is as it was" if path.exists() else "No part of it was left"
            raise InputError(
                f"{error} {kept}. Make room or mend the place, and give the same command again: it goes on from the "
                "run's last.ckpt."
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, its tensors left on disk until they are copied: no process holds all of it in memory.

        Args:
            path: of the file.
            map_location: must not be given; tensors stay where the file is.
            weights_only: refuse whatever is not a tensor or a plain value.
        """
        if map_location is not None:
            raise TypeError("map_location: tensors are mapped from the file, on the CPU.")
        # A file that is replaced meanwhile stays readable: the new one takes its name and not its place.
        return torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes had begun to write; a checkpoint may be gigabytes."""
    for part in folder.glob(".*.ckpt.*.part"):
        part.unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch, on closing what it could not write, complains of a wrong position, and hides why.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
