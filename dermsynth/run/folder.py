"""A run's folder: what it holds, when `fit` may resume it, and when it refuses.

`<run>/fit.yaml` is the resolved configuration, `<run>/checkpoints/last.ckpt` the place to resume from and
`<run>/finished` the mark of a complete training. No run is overwritten by another.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import dermsynth.run.lean  # noqa: F401

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback

from dermsynth import made_from
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.files import write_atomically
from dermsynth.run.checkpoint_io import CONFIGURATION, configuration_of
from dermsynth.run.classes import names_alone
from dermsynth.run.config import RUN_FILE, leaves
from dermsynth.run.default_callbacks import Default
from dermsynth.run.lock import LOCK, TEST_LOCK
from dermsynth.run.seams import validates_now
from dermsynth.run.yaml_files import read_yaml

# Checkpoints cannot tell that training came to its end: a run that stopped early would train on if resumed.
FINISHED = "finished"
PREDICTIONS = "predictions.csv"
# Where a run and its caches lie and what it was started from do not make it another run.
NOT_COMPARED = ("run", "ckpt_path", "pixel_cache")
# What may lie elsewhere, too, but not be left out: latents from a cache are float16, of an image's centre.
_WHETHER = ("latent_cache",)
# What may differ as well where a new run starts from another's checkpoint: what is compared by its hash wherever it
# lies, what only says how fast, and how long the schedule is, as a run may be made longer.
MAY_DIFFER = ("real", "base", "num_workers", "total_steps")
_ABSENT = "nothing"
_CALLBACKS = "trainer.callbacks."
# The learning rate's curve, which changes no weight however many points it has.
_CURVE = f"{_CALLBACKS}LearningRateMonitor."
_TOTAL_STEPS = "model.init_args.lr_scheduler.init_args.total_steps"


def last_checkpoint(run: Path) -> Path:
    """The checkpoint that a run is resumed from."""
    return run / "checkpoints" / "last.ckpt"


@contextmanager
def nothing_left(trainer: Trainer, run: Path, made: Sequence[Path]) -> Iterator[None]:
    """Take away what a stage left in a run's folder, and the folder, if it failed before the first step.

    Lightning begins an event file before the data is read: a mistyped path would leave a ghost in TensorBoard.

    Args:
        trainer: of the stage.
        run: the folder.
        made: those of it and its parents that this command makes, from the innermost.
    """
    before = set(_traces(run))
    try:
        yield
    except BaseException:
        if trainer.is_global_zero and (trainer.state.fn != "fit" or trainer.global_step == 0):
            for path in set(_traces(run)) - before:
                path.unlink()
            if run in made and {path.name for path in run.glob("*")} <= {LOCK, TEST_LOCK}:
                for lock in (LOCK, TEST_LOCK):
                    (run / lock).unlink(missing_ok=True)
            for folder in made:
                if not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()
        raise


def _traces(run: Path) -> list[Path]:
    names = (
        "events.out.tfevents*",
        "hparams.yaml",
        "fit.yaml",
        "validate.yaml",
        "test.yaml",
        "predict.yaml",
        made_from.FILE,
    )
    return [path for name in names for path in run.glob(name)]


def refuse_image_set(run: Path) -> None:
    """Raise if a folder holds an image set, complete or begun: a run in it would be taken for a part of it.

    Raises:
        InputError: it does.
    """
    if (run / manifest.METADATA).exists() or (run / manifest.DATASET).exists():
        raise InputError(f"--run {run}: it holds an image set; give another folder.")


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
        # Nothing would be lost: a first try that failed may be corrected.
        (run / FINISHED).unlink(missing_ok=True)
        return False
    if not file.is_file():
        raise InputError(f"--run {run}: it holds checkpoints but no {RUN_FILE}; give another folder.")
    changes = differences(read_yaml(file), yaml.safe_load(resolved))
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise InputError(
            f"--run {run}: it holds a run with another configuration:\n{lines}\n"
            "Give another --run for a new run. To resume the one that is there: "
            f"python -m dermsynth fit --config {file}"
        )
    return (run / FINISHED).is_file()


def differences(there: dict[str, Any], here: dict[str, Any], ignored: Sequence[str] = NOT_COMPARED) -> list[str]:
    """One line for each key of two configurations whose value is not the same, at most twelve.

    Args:
        there: the one that was found.
        here: the one that is given.
        ignored: names of keys that are not compared.
    """
    old, new = (_comparable(leaves(config, ignored)) for config in (there, here))
    # Of a run that was begun before every training had them; they change no weight.
    added = tuple(
        f"{_CALLBACKS}{name}."
        for name in get_args(Default)
        if not any(key.startswith(f"{_CALLBACKS}{name}.") for key in old)
    )
    new = {key: value for key, value in new.items() if not key.startswith(added)} if added else new
    # A key that came with a later version has null for what was so before.
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = [f"{key}: {old.get(key, _ABSENT)} there, {new.get(key, _ABSENT)} here" for key in changed]
    return lines if len(lines) <= 12 else [*lines[:12], f"… and {len(lines) - 12} more"]


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Leaves without the places of folders, and without what is said although it is the default."""
    compared = {
        key: "a folder" if value is not None and key.rpartition(".")[2] in _WHETHER else value
        for key, value in config.items()
        if not key.startswith(_CURVE)
    }
    if compared.get(_TOTAL_STEPS) == compared.get("trainer.max_steps"):
        compared.pop(_TOTAL_STEPS, None)
    if compared.get("trainer.callbacks") == []:
        del compared["trainer.callbacks"]
    return compared


def check_configuration(checkpoint: dict[str, Any], resolved: str) -> None:
    """Refuse to start from another run's checkpoint with a model or data that it was not made with.

    What the trainer does, such as how long it trains, may differ. Base, weights and train split are compared by hash
    where they are loaded.

    Args:
        checkpoint: as loaded.
        resolved: the whole configuration as YAML.

    Raises:
        InputError: the message names the keys that differ.
    """
    ours = yaml.safe_load(resolved)
    there, here = (
        {key: config.get(key) for key in ("seed_everything", "model", "data")}
        for config in (configuration_of(checkpoint), ours)
    )
    changes = differences(there, here, (*NOT_COMPARED, *MAY_DIFFER))
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise InputError(
            f"it was made with another configuration:\n{lines}\n"
            "A run keeps the model and data that it began with. To start a new one from its weights alone, export them "
            "(python -m dermsynth export) and give that folder as the model."
        )


class RunFile(SaveConfigCallback):
    """Writes the stage's resolved configuration, `<run>/<stage>.yaml`, once its data is in order.

    The same is in every checkpoint, which so says what it was made with. What the stage reads is noted in
    `<run>/made_from.json`: of a `test` when its predictions are there, as those of before may be of something else.
    """

    _yaml: str | None = None
    _inputs: Mapping[str, str] = MappingProxyType({})
    _before: int | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, as YAML."""
        checkpoint[CONFIGURATION] = self._text(trainer)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it on rank 0; each stage has its own file, so `test` cannot replace that of `fit`."""
        assert trainer.state.fn is not None
        if not trainer.checkpoint_callbacks:  # a trial, which may name the folder of a real run
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stage, begun_from = trainer.state.fn.value, self.config.ckpt_path
        write_atomically(folder / f"{stage}.yaml", self._text(trainer))
        if stage == "fit" and begun_from == last_checkpoint(folder):
            return  # it is resumed, and what it was begun from is noted
        self._inputs = made_from.stage_inputs({**yaml.safe_load(self._text(trainer)), "ckpt_path": begun_from})
        self._before = _changed(folder / PREDICTIONS)
        made_from.write(folder, stage, None if stage == "test" else {"inputs": dict(self._inputs)})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the predictions are of, if there are new ones."""
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero and trainer.checkpoint_callbacks and _changed(folder / PREDICTIONS) != self._before:
            made_from.write(folder, "test", {"inputs": dict(self._inputs)})

    def _text(self, trainer: Trainer) -> str:
        """Made once: it takes longer than a small checkpoint's writing."""
        if self._yaml is None:
            config = self.config.clone()
            if trainer.state.fn == "fit":
                # `test --config fit.yaml` must not take for granted the checkpoint that training began from.
                config.ckpt_path = None
            self._yaml = names_alone(self.parser.dump(config, skip_unset=False))
        return self._yaml


def _changed(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None


class LastCheckpoint(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt`, from which the same command resumes exactly.

    It does so after each validation, at the end, without validation after each epoch, and every so many steps on
    request. `ModelCheckpoint(save_last=True)` is no substitute: Lightning 2.6 writes its last.ckpt only when the best
    one changes.

    Gradients are not in a checkpoint. Where some wait for the rest of their batch (`accumulate_grad_batches`), it is
    written after the step that uses them.

    Args:
        every_n_train_steps: write after each so many optimizer steps as well, so that a kill loses no more.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise InputError(f"LastCheckpoint.every_n_train_steps: {every_n_train_steps} must be at least 1.")
        self.every_n_train_steps = every_n_train_steps
        # Optimizer steps when the checkpoint was written, and at the end of the batch before.
        self._written, self._before = -1, -1
        # Whether the last batch ended in an optimizer step, and whether one that did not was validated on.
        self._stepped, self._due = False, False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the best of a run whose folder has another name now, of which `ModelCheckpoint` would know nothing."""
        folder = last_checkpoint(Path(trainer.default_root_dir)).parent
        if trainer.ckpt_path is None or Path(trainer.ckpt_path).parent.resolve() != folder.resolve():
            return
        for keeper in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(keeper.state_key)
            if isinstance(keeper, ModelCheckpoint) and state:
                _move(state, str(keeper.dirpath))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the checkpoint that the run is resumed from."""
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where steps are counted, and after the last."""
        step = trainer.global_step
        self._stepped, self._before = step != self._before, step
        if not self._stepped:
            return
        counted = self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        # The end is not saved later: `EMA` then puts its average in the place of the weights.
        if (self._due or counted or step == trainer.max_steps) and not validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, but not after the sanity check, when the callbacks before have noted the metrics."""
        if trainer.sanity_checking:
            return
        if self._stepped:
            self._save(trainer)
        else:
            self._due = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where nothing is validated, and at the end."""
        if not trainer.enable_validation or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._due = False
        if trainer.global_step != self._written:
            self._written = trainer.global_step
            # False is the default, but Lightning remarks on it.
            trainer.save_checkpoint(last_checkpoint(Path(trainer.default_root_dir)), weights_only=False)


def _move(state: dict[str, Any], folder: str) -> None:
    """Let what a `ModelCheckpoint` remembers be of another folder, if its files are there."""
    there = {path: str(Path(folder) / Path(path).name) for path in state["best_k_models"]}
    if state["dirpath"] == folder or not all(Path(path).is_file() for path in there.values()):
        return
    state["best_k_models"] = {there[path]: score for path, score in state["best_k_models"].items()}
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = there.get(state[key], state[key])
    state["dirpath"] = folder


def validation_follows(trainer: Trainer) -> bool:
    """Whether this batch is validated on; a run that is resumed from its end would leave that validation out."""
    # Agreed on, because all save together, and a `val_check_interval` of time is over on one before the others.
    return trainer.strategy.reduce_boolean_decision(validates_now(trainer), all=False)
