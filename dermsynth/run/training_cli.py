"""fit, validate, test and predict: LightningCLI with the few decisions of this project."""

import math
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dermsynth.run.lean  # noqa: F401

import yaml
from jsonargparse import ArgumentError
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dermsynth.errors import InputError
from dermsynth.files import write_atomically
from dermsynth.run.batch_seed import BatchSeed
from dermsynth.run.callback_checks import check_callbacks
from dermsynth.run.checkpoint_io import WholeCheckpointIO, check_resumable, read_checkpoint, remove_leftovers
from dermsynth.run.classes import DATA, MODELS, import_named, names_alone, take_names
from dermsynth.run.config import RUN_FILE
from dermsynth.run.config_checks import (
    check_arguments,
    check_static_graph,
    check_steps,
    check_training,
    check_values,
    take_paths,
)
from dermsynth.run.config_errors import config_files, explain
from dermsynth.run.divergence import FiniteLoss
from dermsynth.run.environment_checks import check_nodes, check_torchrun, unheeded_signals
from dermsynth.run.failures import explained, instantiating, misconfigured
from dermsynth.run.folder import (
    FINISHED,
    LastCheckpoint,
    RunFile,
    check_configuration,
    claim,
    last_checkpoint,
    nothing_left,
    refuse_image_set,
)
from dermsynth.run.folder_checks import check_foreign, check_moved, check_own
from dermsynth.run.hyperparameters import Hyperparameters, hyperparameters
from dermsynth.run.lock import TEST_LOCK, locked
from dermsynth.run.precision import resolve
from dermsynth.run.progress import RunProgress
from dermsynth.run.quiet import quieten, quieten_transformers
from dermsynth.run.signals import take_signals_from_lightning
from dermsynth.run.summary import ParameterCount
from dermsynth.said import after_fit, after_test, measured


class TrainingCLI(LightningCLI):
    """The command line of fit, validate, test and predict."""

    def __init__(self, args: ArgsType = None) -> None:
        take_names()
        self._asked = (args if isinstance(args, list) else sys.argv[1:])[:1]
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
            # Modules take their optimizer; Lightning's own way steps schedules once an epoch.
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks the instance
        """The stage that is asked for, as the parser of each takes a quarter of a second; all if it is none of them."""
        stages = super().subcommands()
        return {name: skipped for name, skipped in stages.items() if name in self._asked} or stages

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add --run and --arm; hand the data's classes and the one seed to what takes them."""
        parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="The run's folder.")
        parser.add_argument("--arm", type=str | None, help="The arm that the run is of, for compare.")
        parser.link_arguments("data.init_args.classes", "model.init_args.classes")
        for owner in ("data", "model"):
            parser.link_arguments("seed_everything", f"{owner}.init_args.seed", compute_fn=int)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Set defaults of the arguments that Lightning adds here, from the Trainer's methods."""
        usage = f"dermsynth {subcommand} --config FILE --run FOLDER [--KEY VALUE ...]"
        parser = super()._prepare_subcommand_parser(
            klass, subcommand, usage=usage, epilog=_classes(subcommand), **kwargs
        )
        # Checkpoints hold tensors and plain values; anything else in one could run code.
        parser.set_defaults(weights_only=True)
        if subcommand in ("validate", "test"):
            # Said below, with three digits.
            parser.set_defaults(verbose=False)
        if subcommand == "predict":
            # Callbacks write what is generated; kept as well, it would fill the memory.
            parser.set_defaults(return_predictions=False)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and say in one message what is wrong."""
        words = args if isinstance(args, list) else sys.argv[1:]
        check_arguments(words, config_files(words))
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            known = self._subcommand_parsers.get(words[0], parser) if words else parser
            keys = [key for key, _ in known.get_defaults().items()]
            raise InputError(explain(str(error), keys, words)) from error
        config = self.config[self.config.subcommand]
        check_values(config)
        check_training(config)

    def _parse_ckpt_path(self) -> None:
        """Keep Lightning from merging a checkpoint's hyperparameters over YAML and flags without a word."""

    def before_instantiate_classes(self) -> None:
        """Check run and checkpoint before anything slow happens; decide whether `fit` resumes a run."""
        if "transformers" in sys.modules:
            quieten_transformers()
        config = self.config[self.subcommand]
        if config.trainer.default_root_dir is not None:
            raise InputError("trainer.default_root_dir: the folder is given as --run; remove this key.")
        check_steps(config)
        check_static_graph(config)
        check_nodes(config.trainer)
        check_moved(config)
        check_foreign(config.run)
        if self.subcommand != "predict":  # what makes them there looks itself, as it may go on with one
            refuse_image_set(config.run)
        for line in resolve(config, str(self.subcommand)):
            _say(line)
        if self.subcommand == "test" and config.ckpt_path is None:
            raise InputError(
                "test: --ckpt_path must be given, else the weights would be untrained; for example "
                f"{config.run / 'checkpoints' / 'best.ckpt'}."
            )
        if self._is_kept():
            if claim(config.run, self.resolved("fit")):
                mark = (config.run / FINISHED).read_text(encoding="utf-8").strip()
                _say(f"{config.run} is complete ({mark}); nothing is done. A new run needs another --run.")
                raise SystemExit(0)
            # Given again, the command that began a run from another one's checkpoint resumes its own.
            if last_checkpoint(config.run).is_file():
                config.ckpt_path = last_checkpoint(config.run)
        if self.subcommand == "test" and (config.run / RUN_FILE).is_file():
            check_own(config.run, Path(config.ckpt_path))
        self._loops: dict[str, Any] = {}
        if config.ckpt_path is not None:
            checkpoint = read_checkpoint(Path(config.ckpt_path), config.weights_only)
            self._loops = checkpoint.get("loops", {})
            if self.subcommand == "fit":
                try:
                    check_resumable(checkpoint)
                    check_configuration(checkpoint, self.resolved("fit"))
                except InputError as error:
                    raise InputError(f"{config.ckpt_path}: {error}") from error
                _say(f"{config.run}: resumed from {config.ckpt_path}, step {checkpoint['global_step']}")

    def resolved(self, stage: str) -> str:
        """The whole configuration of a stage as YAML.

        Raises:
            InputError: a class has a default that YAML has no word for, such as Lightning's `Timer`.
        """
        try:
            return names_alone(self._parser(stage).dump(self.config[stage], skip_unset=False))
        except ValueError as error:
            classes = re.findall(r"class_path='([\w.]+)'", str(error))
            raise InputError(
                f"trainer.callbacks: {classes[-1] if classes else 'a class'} has a default that cannot be written into "
                f"{stage}.yaml. Give it each of its parameters, for example `interval: step` to Timer."
            ) from error

    def instantiate_classes(self) -> None:
        """Instantiate, and let a class's own message through."""
        with instantiating():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Tie the Trainer to the run's folder: one place for checkpoints, one set of TensorBoard curves."""
        config = self.config_init[self.subcommand]
        logger = config.trainer.logger
        if logger is None or logger is True:
            logger = TensorBoardLogger(save_dir=config.run, name="", version="", default_hp_metric=False)
        callbacks = config.trainer.callbacks or []
        callbacks = [*callbacks] if isinstance(callbacks, list) else [callbacks]
        # Last of all, so that it holds what the other callbacks note at the same moment.
        last = [callback for callback in callbacks if isinstance(callback, LastCheckpoint)] or [LastCheckpoint()]
        callbacks = [callback for callback in callbacks if not isinstance(callback, LastCheckpoint)]
        callbacks += [BatchSeed(int(config.seed_everything)), FiniteLoss(), *(last if self._is_kept() else [])]
        if self.subcommand == "fit" and not config.trainer.fast_dev_run:
            callbacks.append(Hyperparameters(hyperparameters(yaml.safe_load(self.resolved("fit")))))
        for callback in callbacks:
            # Lightning's own choice is a new folder of the logger's each time, in which a resumed run forgets its best.
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(last_checkpoint(config.run).parent)
        if config.trainer.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(RunProgress())
        if config.trainer.enable_model_summary is not False and not any(isinstance(c, ModelSummary) for c in callbacks):
            callbacks.append(ParameterCount())
        plugins = config.trainer.plugins or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO())
        if self._is_kept() and (warning := unheeded_signals(callbacks)):
            _say(warning)
        ours = {"default_root_dir": config.run, "logger": logger, "callbacks": callbacks, "plugins": plugins}
        check_callbacks(callbacks)
        try:
            trainer = super().instantiate_trainer(**ours, **kwargs)
        except (ImportError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        check_torchrun(trainer)
        take_signals_from_lightning(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the stage, alone of its kind in the folder."""
        run = self.config[subcommand].run
        made = [folder for folder in (run, *run.parents) if not folder.exists()]
        with ExitStack() as held:
            held.enter_context(explained(self.trainer, run))
            # Two that predict would also write into one folder.
            if (self._is_kept() or subcommand == "predict") and self.trainer.is_global_zero:
                held.enter_context(locked(run))
                if subcommand == "fit":
                    self._clear()
            if subcommand == "test" and self.trainer.is_global_zero:
                held.enter_context(locked(run, TEST_LOCK))
            # Within the lock, as files that another process writes meanwhile are not this one's to take away.
            held.enter_context(nothing_left(self.trainer, run, made))
            if subcommand in ("validate", "test") and "fit_loop" in self._loops:
                # Curves and pictures then stand at the checkpoint's step; Lightning's would at 0.
                self.trainer.fit_loop.load_state_dict(self._loops["fit_loop"])
            super()._run_subcommand(subcommand)

    def _clear(self) -> None:
        """Delete what a killed process left half-written, now that no other one writes."""
        config = self.config[self.subcommand]
        run, last = config.run, last_checkpoint(config.run)
        if (run / FINISHED).is_file():
            _say(f"{run} is complete: another process has just trained it. Nothing is done.")
            raise SystemExit(0)
        if last.is_file() and config.ckpt_path != last:
            raise InputError(f"--run {run}: another process has just trained there. Give the same command again.")
        remove_leftovers(last.parent)

    def after_fit(self) -> None:
        """Leave the mark of a complete run."""
        if self.trainer.is_global_zero and self._is_kept():
            if self.trainer.global_step == 0:
                raise InputError(
                    "fit: no step was taken, so nothing is trained. Look at trainer.max_time and max_steps."
                )
            text = f"{self.trainer.global_step} steps, {self.trainer.current_epoch} epochs\n"
            write_atomically(self.config["fit"].run / FINISHED, text)
            run, keeper = self.config["fit"].run, self.trainer.checkpoint_callback
            best = keeper.best_model_path if isinstance(keeper, ModelCheckpoint) else ""
            following = after_fit(run, Path(best or last_checkpoint(run)), self.model)
            _say(f"finished: {run}{_best(self.trainer)}\nnext: {following}")

    def after_validate(self) -> None:
        """Say what was measured."""
        _say(measured(self.trainer.callback_metrics))

    def after_test(self) -> None:
        """Say what was measured, and what comes next if it was of all images."""
        run = self.config["test"].run
        _say(measured(self.trainer.callback_metrics))
        if (run / "predictions.csv").is_file():
            _say(f"predictions: {run / 'predictions.csv'}\nnext: {after_test(run)}")

    def _is_kept(self) -> bool:
        """Whether this is a `fit` that leaves something to resume, and not a trial."""
        trainer = self.config[self.subcommand].trainer
        return self.subcommand == "fit" and not trainer.fast_dev_run and trainer.enable_checkpointing is not False


def run(arguments: list[str]) -> None:
    """Run one of the four stages.

    Args:
        arguments: the stage and its arguments. Those of the process are left to Lightning, which reads
            `sys.argv` again in the other processes of a distributed run.

    Raises:
        InputError: a mistake in the configuration, the run's folder or a checkpoint.
        KeyboardInterrupt: Ctrl-C, after Lightning has shut down.
    """
    quieten()
    take_paths()
    import_named(arguments)
    try:
        TrainingCLI(None if arguments == sys.argv[1:] else arguments)
    except MisconfigurationException as error:
        raise misconfigured(error) from error
    except SystemExit as error:
        # Lightning answers Ctrl-C with exit status 1, that of a crash.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _classes(subcommand: str) -> str:
    """The models and data modules, and how to see what each takes; the parser breaks the lines."""
    return (
        f"Models of this package: {', '.join(MODELS)}. Data modules: {', '.join(DATA)}. "
        f"To see the keys of one: dermsynth {subcommand} --model.help Classifier, --data.help ClassificationData."
    )


def _best(trainer: Trainer) -> str:
    keeper = trainer.checkpoint_callback
    if not isinstance(keeper, ModelCheckpoint) or not keeper.best_model_path:
        return ""
    # ModelCheckpoint takes NaN for infinity, and keeps the first.
    if keeper.best_model_score is not None and math.isinf(keeper.best_model_score):
        return f"; {keeper.monitor} was NaN at every validation, so that {keeper.best_model_path} is not the best"
    return f", best checkpoint {keeper.best_model_path}"


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
