"""What a run uses of Lightning, jsonargparse and torch that they do not promise, each checked before it is used.

An upgrade that takes one of them away ends in one line that names the seam. Texts by which jsonargparse's messages are
read are in config_errors.py, and those that are silenced in quiet.py: where one is worded otherwise, it is shown as it
is.
"""

import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from dermsynth.seams import SeamError, part_of, relied_on

# Exceptions that nothing but their text tells apart. One that is worded otherwise is shown as it is, with a traceback.
EARLY_STOPPING = "Early stopping conditioned on metric"  # Lightning, of a metric that nothing logs
NO_GPU = "No supported gpu backend"  # Lightning
NO_PACKAGE = r"^.*(Requirement '|No module named).*$"  # Lightning, of a logger's package; a pattern
OVERFLOW = ("cannot be converted to type", "without overflow")  # torch, of an optimizer's step
OF_A_WORKER = "Original Traceback"  # torch, of a loader process
OTHER_WEIGHTS = "Error(s) in loading state_dict"  # torch
NO_YAML = r"class_path='([\w.]+)'"  # jsonargparse, of a default that YAML has no word for; a pattern

_RESTORES = "lightning.pytorch.trainer.connectors.checkpoint_connector"


class OpenCLI(LightningCLI):
    """LightningCLI whose private steps are methods with promised names.

    Its public hooks are called neither around a whole stage, which must be alone in its folder from before it begins
    until its mark is made, nor in place of the seed, which a configuration that is only read must leave alone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check = functools.partial(relied_on, "run.seams.OpenCLI", "lightning", LightningCLI)
        check("_run_subcommand", ("self", "subcommand"), LightningCLI.__init__)
        check("_set_seed", ("self",), LightningCLI.__init__)
        check("_parse_ckpt_path", ("self",), LightningCLI.__init__)
        check("_parser", ("self", "subcommand"), LightningCLI.instantiate_trainer)
        part_of("run.seams.raised_while_restoring", "lightning", _RESTORES)
        super().__init__(*args, **kwargs)

    def run_stage(self, stage: str) -> None:
        """Run it, with what comes before and after."""
        super()._run_subcommand(stage)

    def seed(self) -> None:
        """Seed the random numbers of the process."""
        super()._set_seed()

    def stage_parser(self, stage: str) -> LightningArgumentParser:
        """The parser of a stage that was asked for."""
        return self._parser(stage)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_stage(subcommand)

    def _set_seed(self) -> None:
        self.seed()

    def _parse_ckpt_path(self) -> None:
        """Keep Lightning from silently merging a checkpoint's hyperparameters over YAML and flags."""


def replace_signal_handlers(trainer: Trainer, register: Callable[[], Mapping[int, Any]]) -> None:
    """Set other signal handlers in place of Lightning's.

    Lightning's save, or ask the other ranks, in the middle of whatever runs, which can hang; no flag turns them off.
    What they noted all ranks would ask rank 0 at each batch, and the host wait for the device's answer.

    Args:
        trainer: before it runs.
        register: sets handlers when a stage begins, and returns those that Lightning puts back at its end.
    """
    check = functools.partial(relied_on, "run.seams.replace_signal_handlers", "lightning")
    connector = check(trainer, "_signal_connector")
    check(connector, "register_signal_handlers", (), check(type(trainer), "_run"))
    check(connector, "_original_handlers", None, check(type(connector), "teardown"))
    loop = trainer.fit_loop.epoch_loop
    check(loop, "_broadcast_sigterm_tensor", (), check(type(loop), "advance"))

    def ours() -> None:
        connector._original_handlers = register()

    connector.register_signal_handlers = ours
    loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    pass


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The module's Trainer, if it has one: asked for it, a module without one raises as for any mistake."""
    trainer: Trainer | None = relied_on("run.seams.attached_trainer", "lightning", module, "_trainer")
    return trainer


def started_processes(trainer: Trainer) -> list[Any]:
    """The other processes of this machine where Lightning itself started them, as its first process knows."""
    launcher = trainer.strategy.launcher
    return [] if launcher is None else relied_on("run.seams.started_processes", "lightning", launcher, "procs")


def validates_now(trainer: Trainer) -> bool:
    """Whether this process validates after the batch that is ending, which Lightning says to no callback."""
    check = functools.partial(relied_on, "run.seams.validates_now", "lightning")
    loop = trainer.fit_loop
    fetcher = check(loop, "_data_fetcher")
    return bool(check(loop.epoch_loop, "_should_check_val_fx", ("data_fetcher",))(fetcher))


def check_epochs_reach(loader: DataLoader[Any]) -> None:
    """Refuse a Lightning that would not tell a batch sampler its epoch: each would be dealt as the first was.

    Lightning promises it for samplers alone, and of a batch sampler looks at its `sampler`.

    Args:
        loader: whose batch sampler has `epoch` and `set_epoch`, and itself for its `sampler`.
    """
    seam, sampler = "run.seams.check_epochs_reach", loader.batch_sampler
    module = part_of(seam, "lightning", "lightning.pytorch.loops.fit_loop")
    loop = relied_on(seam, "lightning", module, "_FitLoop")
    told_by, takes = relied_on(seam, "lightning", loop, "on_advance_start"), ("dataloader", "epoch")
    tell = relied_on(seam, "lightning", module, "_set_sampler_epoch", takes, told_by)
    before: int = sampler.epoch  # type: ignore[union-attr]
    tell(loader, before + 1)
    told: int = sampler.epoch  # type: ignore[union-attr]
    tell(loader, before)
    if told != before + 1:
        raise SeamError(seam, "lightning", "tells a batch sampler no epoch")


def write_summary(logger: TensorBoardLogger, summary: Any) -> None:
    """Write a summary of several values, for which torch's writer has no method, into the run's event file."""
    writer = relied_on("run.seams.write_summary", "torch", logger.experiment, "_get_file_writer")()
    writer.add_summary(summary)


def raised_while_restoring(error: BaseException) -> bool:
    """Whether Lightning raised it while it took a checkpoint apart, which alone tells a broken one from a mistake."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == _RESTORES for frame, _ in frames)


def cpu_computes(kind: torch.dtype) -> bool:
    """Whether this CPU has instructions for products of bfloat16 or float16, of which nothing public of torch tells."""
    if not torch.backends.mkldnn.is_available():
        return False
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[kind]
    return bool(relied_on("run.seams.cpu_computes", "torch", torch.ops.mkldnn, name)())
