"""Stops a training in good order when it is told to: by Slurm's time limit, by preemption, or by Ctrl-C."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch.distributed import ReduceOp

from dermsynth.errors import InputError
from dermsynth.run.folder import last_checkpoint, validation_follows
from dermsynth.run.seams import started_processes

# What is asked for; of several the largest is done.
_NOTHING, _STOP, _REQUEUE = range(3)
_ASKED = {signal.SIGINT: _STOP, signal.SIGUSR1: _REQUEUE, signal.SIGTERM: _REQUEUE}
# EX_TEMPFAIL of sysexits.h: to be tried again. Slurm takes nothing but 0 for success.
STOPPED = 75
INTERRUPTED = 130


class Preemption(Checkpoint):
    """Saves `checkpoints/last.ckpt`, gives the job back to Slurm's queue and ends with a status that says so.

    SIGUSR1 (sbatch's `--signal`, some time before the limit) and SIGTERM (preemption) do this, SIGINT (Ctrl-C) the same
    without the queue; a second Ctrl-C stops at once. The handlers only set a flag. After each optimizer step the ranks
    tell one another of it, so that all stop after the same step, whichever was told.

    The status is 75, or 130 after Ctrl-C; the same command resumes. While the model is validated nothing can be saved
    that resumes exactly, so that the job ends after the validation: let `--signal` come earlier than that takes. Before
    training starts a signal ends the process as it does any other, since there is nothing to save.

    Every `fit` has it, after each `ModelCheckpoint`, as its last checkpoint is to know of the best one.
    """

    signals = tuple(_ASKED)

    def __init__(self) -> None:
        self._asked = _NOTHING
        self._interrupted = False
        self._step = -1
        self._stepped = False
        self._handlers: dict[int, Any] = {}
        self._group: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Be the last to save.

        Raises:
            InputError: a `ModelCheckpoint` comes after this.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(other, ModelCheckpoint) for other in callbacks[callbacks.index(self) :]):
            raise InputError(
                "trainer.callbacks: callbacks.preemption.Preemption must come after ModelCheckpoint, else its last "
                "checkpoint would not know of the best one."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here on: what comes before, such as filling a cache, may take longer than Slurm waits."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._step = trainer.global_step
        if trainer.world_size > 1:
            # Of its own, on the CPU: asking the GPUs would make the host wait for them in every step. It begins when
            # all ranks are here, so that hardly a signal finds one that listens and one that does not.
            self._group = torch.distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():  # no other can
            self._handlers = {number: signal.signal(number, self._note) for number in _ASKED}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step: save and leave; where the model is validated next, after that."""
        self._stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not self._stepped or _is_over(trainer):
            return
        if (asked := self._agreed()) and not validation_follows(trainer):
            self._save_and_leave(trainer, asked, f"after step {trainer.global_step}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and leave; every other callback has seen the result."""
        ours = trainer.state.fn == "fit" and not trainer.sanity_checking
        # Gradients that are being accumulated are in no checkpoint.
        if not ours or not self._stepped or _is_over(trainer):
            return
        if asked := self._agreed():
            self._save_and_leave(trainer, asked, f"after the validation of step {trainer.global_step}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no longer where training broke off, since nobody heeds the flag; while it leaves, a signal waits."""
        if not isinstance(exception, SystemExit):
            self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no longer."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:  # else somebody has already put back what was before
                signal.signal(number, handler)
        self._handlers = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            if os.environ.get("LOCAL_RANK", "0") == "0":
                # `print` must not be called in the middle of itself.
                os.write(2, b"\nstopping after this step or validation; Ctrl-C again stops at once\n")
        self._asked = max(self._asked, _ASKED[signal.Signals(number)])

    def _agreed(self) -> int:
        """The most that any rank was asked for."""
        if self._group is None:
            return self._asked
        asked = torch.tensor(self._asked)
        torch.distributed.all_reduce(asked, ReduceOp.MAX, group=self._group)
        return int(asked)

    def _save_and_leave(self, trainer: Trainer, asked: int, when: str) -> NoReturn:
        """End this process, with its place saved and the job in the queue if that was asked for."""
        trainer.save_checkpoint(last_checkpoint(Path(trainer.default_root_dir)), weights_only=False)
        if trainer.is_global_zero:
            queue = requeue() if asked == _REQUEUE else ""
            print(
                f"{trainer.default_root_dir}: stopped by a signal {when}. {queue}The same command resumes it.",
                flush=True,
            )
        # Whether Lightning started the other processes of this machine, as the first of them knows.
        started = torch.tensor(bool(started_processes(trainer)))
        if self._group is not None:
            # Also lets the first one finish: srun and Lightning kill it when another is gone with such a status.
            torch.distributed.broadcast(started, src=0, group=self._group)
        if started and trainer.local_rank:
            raise SystemExit(0)
        raise SystemExit(INTERRUPTED if asked == _STOP else STOPPED)


def requeue() -> str:
    """Give this job, or this task of its array, back to Slurm's queue; what came of it, as a sentence."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if job is None:
        return ""
    if array is not None:
        # One task's job id may be that of the array, which would requeue all of it.
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        # Of a job that scancel ends, or that is past its time, Slurm says otherwise, and would take it back as well.
        state = _state(job)
        if state != "RUNNING":
            return f"Job {job} is {state or 'unknown to squeue'}, not RUNNING, so it is not put back into the queue. "
        _ask("scontrol", "requeue", job)
    except _SlurmError as error:
        return f"Job {job} could not be put back into the queue ({error}); submit it again. "
    return f"Job {job} is back in the queue. "


class _SlurmError(Exception):
    """A command of Slurm failed; the text says why."""


def _state(job: str) -> str:
    command = ("squeue", "--noheader", "--format=%T", f"--jobs={job}")
    try:
        return _ask(*command)
    except _SlurmError:  # the controller was busy, or a second signal to all of the job's processes ended the command
        time.sleep(1)
        return _ask(*command)


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _SlurmError(str(error)) from error
    if done.returncode:
        raise _SlurmError(done.stderr.strip() or f"{command[0]} ended with status {done.returncode}")
    return done.stdout.strip()


def _is_over(trainer: Trainer) -> bool:
    """Whether training ends here by itself, and saves."""
    return trainer.global_step == trainer.max_steps or trainer.should_stop
