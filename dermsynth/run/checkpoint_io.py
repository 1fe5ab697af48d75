"""How checkpoints reach the disk, whole or not at all, and are read from it, whole or refused."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import dermsynth.run.lean  # noqa: F401

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from dermsynth.errors import InputError
from dermsynth.files import make_folder, reading, whole_file
from dermsynth.run.divergence import refuse_broken_weights
from dermsynth.run.yaml_files import parse_yaml
from dermsynth.weights import refuse_not_finite

# Where a checkpoint keeps its run's configuration.
CONFIGURATION = "configuration"
_OTHER = "Take another checkpoint, such as best.ckpt or last.ckpt of the same run."
_NOT_WHOLE = f"not a whole checkpoint: it was cut, or its bytes are damaged. {_OTHER}"


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
                f"{error} {kept}. Make room or correct its permissions, and give the same command again: it resumes "
                "from the run's last.ckpt."
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


def read_checkpoint(path: Path, weights_only: bool | None = True) -> dict[str, Any]:
    """A checkpoint, its tensors left on disk.

    Args:
        path: the file.
        weights_only: refuse whatever is not a tensor or a plain value.

    Raises:
        InputError: it is not there, not whole, not one of a training run, or its weights are not finite.
    """
    _check_file(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a checkpoint, or it holds more than tensors and plain values, and loading that "
            "could run code. If you trust it, give --weights_only false."
        ) from error
    except Exception as error:  # whatever unpickling of garbled bytes raises
        raise InputError(f"{path}: {_NOT_WHOLE}") from error
    if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a training run.")
    version = checkpoint["pytorch-lightning_version"]
    if not (isinstance(version, str) and re.match(r"[2-9]\.\d|\d\d+\.\d", version)):
        raise InputError(f"{path}: it is of Lightning {str(version)[:20]!r}; expected 2.0 or later.")
    for key in ("state_dict", "current_model_state"):
        weights = checkpoint.get(key, {})
        if not (isinstance(weights, dict) and all(isinstance(w, Tensor) for w in weights.values())):
            raise InputError(f"{path}: its {key} is not a mapping of weights. {_OTHER}")
        refuse_not_finite(f"{path}", weights)
    return checkpoint


def check_resumable(checkpoint: dict[str, Any]) -> None:
    """Refuse to resume training from what holds weights alone.

    Raises:
        InputError: naming what it lacks.
    """
    for key, kind in (("epoch", int), ("global_step", int), ("loops", dict), ("optimizer_states", list)):
        value = checkpoint.get(key)
        if not isinstance(value, kind) or (key == "loops" and not _tells_the_place(checkpoint[key])):
            raise InputError(f"its {key} is missing or broken, so training cannot be resumed from it. {_OTHER}")


def _tells_the_place(loops: dict[str, Any]) -> bool:
    """Whether Lightning finds where training was; what it does not find, it silently restarts."""
    fit_loop = loops.get("fit_loop")
    return isinstance(fit_loop, dict) and {"epoch_progress", "epoch_loop.batch_progress"} <= fit_loop.keys()


def configuration_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The whole configuration of the run that wrote a checkpoint.

    Raises:
        InputError: it says none, or nonsense.
    """
    if CONFIGURATION not in checkpoint:
        raise InputError("it does not say which configuration it was made with, as a checkpoint of a run does.")
    text = checkpoint[CONFIGURATION]
    try:
        config = parse_yaml(text, "its configuration") if isinstance(text, str) else None
    except InputError:
        config = None
    return checked_configuration(config, "its configuration")


def seed_of(path: Path) -> int | None:
    """The `seed_everything` of the run that wrote a checkpoint; none if it does not say."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    seed = configuration_of(checkpoint).get("seed_everything") if CONFIGURATION in checkpoint else None
    return seed if isinstance(seed, int) else None


def checked_configuration(config: Any, owner: str) -> dict[str, Any]:
    """Refuse what does not say of which classes model and data are, and with what.

    Args:
        config: as read from YAML.
        owner: what it is called in the message.
    """
    parts = [config.get(name) for name in ("model", "data")] if isinstance(config, dict) else [None]
    if not all(
        isinstance(part, dict)
        and isinstance(part.get("class_path"), str)
        and isinstance(part.get("init_args", {}), dict)
        for part in parts
    ):
        raise InputError(f"{owner} is not that of a run: it says no class_path and init_args of model and data.")
    return config


def _check_file(path: Path) -> None:
    """Refuse what is no file, or one of damaged bytes: those of tensors are mapped, and would not be looked at."""
    if path.is_dir():
        inner = next(
            (
                file
                for name in ("best.ckpt", "last.ckpt")
                for file in (path / "checkpoints" / name, path / name)
                if file.is_file()
            ),
            None,
        )
        raise InputError(f"{path} is a folder. Give a checkpoint{f', such as {inner}' if inner else ''}.")
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint.")
    if not path.is_file():
        raise InputError(f"{path}: no file. Give a checkpoint.")
    with reading(path):
        try:
            with zipfile.ZipFile(path) as parts:
                broken = parts.testzip()
        except OSError:
            raise
        except Exception as error:  # of a damaged header, zipfile raises many kinds
            raise InputError(f"{path}: {_NOT_WHOLE}") from error
    if broken:
        raise InputError(f"{path}: {_NOT_WHOLE}")


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
