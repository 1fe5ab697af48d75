"""A run's folder: what it holds, when `fit` may go on in it, and when it refuses.

`<run>/fit.yaml` is the resolved configuration, `<run>/checkpoints/last.ckpt` the place to go on from and
`<run>/finished` the mark of a complete training. No run is overwritten by another.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import SaveConfigCallback

from dermsynth.errors import InputError
from dermsynth.files import write_atomically

RUN_FILE = "fit.yaml"
# Checkpoints cannot tell that training came to its end: a run that stopped early would go on if resumed.
FINISHED = "finished"
# Where a run and its cache lie and what it was started from do not make it another run.
NOT_COMPARED = ("run", "ckpt_path", "pixel_cache")
_ABSENT = "nothing"


def last_checkpoint(run: Path) -> Path:
    """The checkpoint that a run goes on from."""
    return run / "checkpoints" / "last.ckpt"


def claim(run: Path, resolved: str) -> bool:
    """Find out what a folder means to a `fit` of this configuration.

    Args:
        run: the folder; it need not exist.
        resolved: the whole configuration as YAML.

    Returns:
        Whether the run is there and complete.

    Raises:
        InputError: the folder holds another run; the message names the keys that differ.
    """
    file = run / RUN_FILE
    if run.exists() and not run.is_dir():
        raise InputError(f"--run {run}: a file. Give a folder.")
    if not last_checkpoint(run).exists():
        # Nothing would be lost: a first try that failed may be mended.
        (run / FINISHED).unlink(missing_ok=True)
        return False
    if not file.is_file():
        raise InputError(f"--run {run}: it holds checkpoints but no {RUN_FILE}; give another folder.")
    changes = differences(yaml.safe_load(file.read_text(encoding="utf-8")), yaml.safe_load(resolved))
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise InputError(
            f"--run {run}: it holds a run with another configuration:\n{lines}\n"
            "Give another --run for a new run. To go on with the one that is there: "
            f"python -m dermsynth fit --config {file}"
        )
    return (run / FINISHED).is_file()


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """One line for each key of two configurations whose value is not the same, at most twelve."""
    old, new = _flat(there), _flat(here)
    changed = [key for key in {**old, **new} if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    lines = [f"{key}: {old.get(key, _ABSENT)} there, {new.get(key, _ABSENT)} here" for key in changed]
    return lines if len(lines) <= 12 else [*lines[:12], f"… and {len(lines) - 12} more"]


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Leaves by dotted key; a list is a leaf unless it holds classes, such as callbacks."""
    if isinstance(value, dict) and value:
        items = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(f"{key}.{number}", item) for number, item in enumerate(value)]
    else:
        return {key: value}
    return {path: leaf for name, item in items if name not in NOT_COMPARED for path, leaf in _flat(item, name).items()}


def read_checkpoint(path: Path, weights_only: bool | None = True) -> dict[str, Any]:
    """A checkpoint, its tensors left on disk.

    Args:
        path: the file.
        weights_only: refuse whatever is not a tensor or a plain value.

    Raises:
        InputError: it is not there, not whole, or not one of a training run.
    """
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a checkpoint, or it holds more than tensors and plain values, and loading that "
            "could run code. If you trust it, give --weights_only false."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: not a whole checkpoint. Delete it and take another one, such as best.ckpt beside it."
        ) from error
    if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a training run.")
    return checkpoint


class RunFile(SaveConfigCallback):
    """Writes the stage's resolved configuration, `<run>/<stage>.yaml`, once its data is in order."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it on rank 0; each stage has its own file, so `test` cannot replace that of `fit`."""
        assert trainer.state.fn is not None
        if not trainer.checkpoint_callbacks:  # a trial, which may name the folder of a real run
            return
        config = self.config.clone()
        if trainer.state.fn == "fit":
            # `test --config fit.yaml` must not take for granted the checkpoint that training began from.
            config.ckpt_path = None
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(config, skip_unset=False)
        write_atomically(folder / f"{trainer.state.fn.value}.yaml", text)


class LastCheckpoint(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt` after each validation and at the end of training.

    Without validation it does so after each epoch. `ModelCheckpoint(save_last=True)` is no substitute:
    Lightning 2.6 writes its last.ckpt only when the best one changes.
    """

    def __init__(self) -> None:
        self._step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, but not after the sanity check."""
        if not trainer.sanity_checking:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where nothing is validated."""
        if not trainer.enable_validation:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps since the last validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            path = last_checkpoint(Path(trainer.default_root_dir))
            # Lightning's own write may end in a copy between file systems: beside the target first, so that a kill
            # leaves the checkpoint before. False is the default, but Lightning remarks on it.
            beside = path.with_name(f"{path.name}.part")
            trainer.save_checkpoint(beside, weights_only=False)
            if trainer.is_global_zero:
                beside.replace(path)
            trainer.strategy.barrier("last checkpoint")
