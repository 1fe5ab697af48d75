"""fit, validate, test and predict: LightningCLI with the few decisions of this project.

A run is a folder, `--run FOLDER`. It holds the resolved configuration of each stage (`fit.yaml` …), the checkpoints, the
TensorBoard events and what callbacks write. `fit` on a folder that exists goes on with it or refuses, so that no run is
overwritten.
"""

import logging
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dermsynth.config_errors import explain
from dermsynth.data.manifest import write_atomically
from dermsynth.errors import InputError

RUN_FILE = "fit.yaml"
# Its presence says that training came to its end; checkpoints alone cannot tell, as early stopping leaves no trace there.
FINISHED = "finished"
# Where a run lies and what it was started from do not make it another run.
NOT_COMPARED = ("run", "ckpt_path")
_ABSENT = "nothing"


class RunFile(SaveConfigCallback):
    """Writes the resolved configuration of the stage that runs, `<run>/<stage>.yaml`, once its data is in order."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it on rank 0; `test` has another file than `fit`, so that it cannot replace it."""
        assert trainer.state.fn is not None
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.clone()
        if trainer.state.fn == "fit":
            # `test --config fit.yaml` must not take for granted the checkpoint that training began from.
            config.ckpt_path = None
        write_atomically(folder / f"{trainer.state.fn.value}.yaml", _resolved(self.parser, config))


class LastCheckpoint(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt`, which `fit` goes on from, after each validation and at the end.

    Without validation it does so after each epoch. `ModelCheckpoint(save_last=True)` is no substitute: Lightning 2.6
    writes its last.ckpt only when the best one changes.
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
        if trainer.global_step != self._step and not trainer.fast_dev_run:
            self._step = trainer.global_step
            trainer.save_checkpoint(last_checkpoint(Path(trainer.default_root_dir)))


class TrainingCLI(LightningCLI):
    """The command line of fit, validate, test and predict."""

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunFile,
            save_config_kwargs={"save_to_log_dir": False},
            # The samplers of dermsynth.data deal to ranks themselves.
            trainer_defaults={"use_distributed_sampler": False},
            seed_everything_default=0,
            # An abbreviation such as --trainer.max_epoch would pass for the real flag without a word.
            parser_kwargs={"prog": "dermsynth", "exit_on_error": False, "allow_abbrev": False},
            # Modules take their optimizer; Lightning's own way steps schedules per epoch.
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add --run, and hand the data's classes to models that take classes."""
        parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="The run's folder.")
        parser.link_arguments("data.init_args.classes", "model.init_args.classes")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Change defaults of the Trainer's methods, which are added only here."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # Checkpoints hold tensors and plain values; anything else in one could run code.
        parser.set_defaults(weights_only=True)
        if subcommand == "predict":
            # Callbacks write what is generated; kept in memory too, it would fill it.
            parser.set_defaults(return_predictions=False)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and say in one message what is wrong."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            words = sys.argv[1:] if args is None else [str(word) for word in args]
            known = self._subcommand_parsers.get(words[0]) if words else None
            raise InputError(
                explain(str(error), list((known or parser).get_defaults().keys()), words)
            ) from error

    def _parse_ckpt_path(self) -> None:
        """Leave out Lightning's merging of a checkpoint's hyperparameters: it would override YAML and flags unseen."""

    def before_instantiate_classes(self) -> None:
        """Check checkpoint and run before anything slow happens; decide whether `fit` resumes."""
        config = self.config[self.subcommand]
        if config.trainer.default_root_dir is not None:
            raise InputError("trainer.default_root_dir: the folder is given as --run; remove this key.")
        if self.subcommand == "fit" and not config.trainer.fast_dev_run:
            config.ckpt_path = self._claim(config)
        elif self.subcommand == "test" and config.ckpt_path is None:
            raise InputError(
                "test: --ckpt_path is missing, so the weights would be untrained. "
                f"Give it, for example {config.run / 'checkpoints' / 'best.ckpt'}."
            )
        if config.ckpt_path is not None:
            _read_checkpoint(Path(config.ckpt_path), config.weights_only)

    def _claim(self, config: Namespace) -> Path | str | None:
        """The checkpoint that a `fit` of this configuration in its folder goes on from.

        Raises:
            InputError: the folder holds another run.
            SystemExit: the run is complete.
        """
        run: Path = config.run
        file, last = run / RUN_FILE, last_checkpoint(run)
        if not file.is_file():
            if last.parent.exists():
                raise InputError(f"--run {run}: it holds checkpoints but no {RUN_FILE}; give another folder.")
            return config.ckpt_path
        then, now = yaml.safe_load(file.read_text(encoding="utf-8")), _resolved(self._parser("fit"), config)
        if changes := _differences(then, yaml.safe_load(now)):
            lines = "\n".join(f"  {line}" for line in changes)
            raise InputError(
                f"--run {run}: it holds a run with another configuration. Here and there differ:\n{lines}\n"
                f"Give another --run for a new run, or go on with the old one: "
                f"python -m dermsynth fit --config {file}"
            )
        if (run / FINISHED).is_file():
            _say(f"{run} is complete: {(run / FINISHED).read_text(encoding='utf-8').strip()}. Nothing to do.")
            raise SystemExit(0)
        if config.ckpt_path is None and last.is_file():
            step = _read_checkpoint(last, config.weights_only)["global_step"]
            _say(f"{run}: going on from {last}, step {step}")
            return last
        return config.ckpt_path

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Tie the Trainer to the run's folder: one place for checkpoints, one set of TensorBoard curves."""
        config = self.config_init[self.subcommand]
        logger = config.trainer.logger
        if logger is None or logger is True:
            logger = TensorBoardLogger(save_dir=config.run, name="", version="")
        callbacks = config.trainer.callbacks or []
        callbacks = [*callbacks] if isinstance(callbacks, list) else [callbacks]
        if self.subcommand == "fit" and config.trainer.enable_checkpointing is not False:
            callbacks.append(LastCheckpoint())
        return super().instantiate_trainer(
            default_root_dir=config.run, logger=logger, callbacks=callbacks, **kwargs
        )

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the stage; name the file where a checkpoint does not fit the model."""
        try:
            super()._run_subcommand(subcommand)
        except (InputError, RuntimeError) as error:
            # Modules see a checkpoint's content and not its file; `load_state_dict` lists every weight.
            lines = str(error).splitlines()
            if not lines or not lines[0].startswith(("the checkpoint", "Error(s) in loading state_dict")):
                raise
            more = [f"\t… and {len(lines) - 5} more"] if len(lines) > 5 else []
            raise InputError(
                "\n".join([f"{self.trainer.ckpt_path}: {lines[0]}", *lines[1:5], *more])
            ) from error

    def after_fit(self) -> None:
        """Leave the mark of a complete run."""
        trainer = self.trainer
        if trainer.is_global_zero and not trainer.fast_dev_run:
            text = f"{trainer.global_step} steps, {trainer.current_epoch} epochs\n"
            write_atomically(Path(trainer.default_root_dir) / FINISHED, text)


def run(arguments: list[str]) -> None:
    """Run one of the four stages.

    Args:
        arguments: the stage and its arguments. The command line's own are left to Lightning, which needs them in
            `sys.argv` to start the other processes of a distributed run.

    Raises:
        InputError: a mistake in the configuration, the run's folder or a checkpoint.
        KeyboardInterrupt: Ctrl-C, after Lightning has shut down.
    """
    _quieten()
    try:
        TrainingCLI(None if arguments == sys.argv[1:] else arguments)
    except SystemExit as error:
        # Lightning answers Ctrl-C with exit status 1, that of a crash.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def last_checkpoint(run: Path) -> Path:
    """Where a run keeps the checkpoint that it goes on from."""
    return run / "checkpoints" / "last.ckpt"


def _quieten() -> None:
    """Silence what Lightning says in every run and a user can do nothing about."""
    # Advertisements of its makers' services.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda line: "Tip:" not in line.getMessage()
    )
    # A change in torch that Lightning has yet to follow.
    warnings.filterwarnings("ignore", r".*treespec, LeafSpec")
    # True of every run that is resumed; `fit` has checked that the checkpoints are its own.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")


def _resolved(parser: LightningArgumentParser, config: Namespace) -> str:
    """The whole configuration as YAML that parses to itself."""
    return parser.dump(config, skip_none=False)


def _read_checkpoint(path: Path, weights_only: bool | None) -> dict[str, Any]:
    """The checkpoint, its tensors left on disk.

    Raises:
        InputError: it is not there, not whole, or not one of Lightning.
    """
    if not path.exists():
        raise InputError(f"--ckpt_path {path}: no such file.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: it holds more than tensors and plain values, and loading that could run code. If you trust it, "
            "give --weights_only false."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole checkpoint ({str(error).split('. ')[0]}).") from error
    if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a training run.")
    return checkpoint


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each key whose value is not the same."""
    old, new = _flat(then), _flat(now)
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
    return {
        path: leaf
        for name, item in items
        if name not in NOT_COMPARED
        for path, leaf in _flat(item, name).items()
    }


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
