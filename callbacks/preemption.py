"""Stops a training in good order when it is told to: by Slurm's time limit, by preemption, or by Ctrl-C."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch.distributed import ReduceOp

from dermsynth.errors import InputError
from dermsynth.run_folder import last_checkpoint, validation_follows

# What is asked for; of several the largest is done.
_NOTHING, _STOP, _REQUEUE = range(3)
_ASKED = {signal.SIGINT: _STOP, signal.SIGTERM: _REQUEUE, signal.SIGUSR1: _REQUEUE}
# EX_TEMPFAIL of sysexits.h: to be tried again. Slurm takes nothing but 0 for success.
STOPPED = 75
INTERRUPTED = 130


class Preemption(Checkpoint):
    """Saves `checkpoints/last.ckpt`, gives the job back to Slurm's queue and ends with a status that says so.

    SIGUSR1 (sbatch's `--signal`, some time before the limit) and SIGTERM (preemption) do this, SIGINT (Ctrl-C) the same
    without the queue; a second Ctrl-C stops at once. The handlers only set a flag. After each optimizer step the ranks
    tell one another of it, so that all stop after the same step, whichever was told. Lightning's own handlers save
    where the signal finds them, and ranks then wait for one another for ever.

    The status is 75, or 130 after Ctrl-C; the same command goes on. While the model is validated nothing can be saved
    that goes on exactly, so that the job ends after the validation: let `--signal` come earlier than that takes.

    List it after every `ModelCheckpoint`.
    """

    def __init__(self) -> None:
        self._asked = _NOTHING
        self._step = -1
        self._stepped = False
        self._handlers: dict[int, Any] = {}
        self._group: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen from here on: loading a model takes time."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(other, ModelCheckpoint) for other in callbacks[callbacks.index(self) :]):
            raise InputError(
                "trainer.callbacks: callbacks.preemption.Preemption must come after ModelCheckpoint, else its last "
                "checkpoint would not know of the best one."
            )
        if stage == "fit":
            self._listen()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen again: Lightning has set a handler for SIGTERM in between."""
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same; and leave, if a signal came before there was anything to save."""
        self._listen()
        self._step = trainer.global_step
        # Of its own, on the CPU: asking the GPUs would make the host wait for them in every step.
        self._group = torch.distributed.new_group(backend="gloo") if trainer.world_size > 1 else None
        if asked := self._agreed():
            self._leave(trainer, asked, "before its first step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step: save and leave, or, where the model is validated next, leave that to its end."""
        self._stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not self._stepped or trainer.global_step == trainer.max_steps:
            return  # gradients are being accumulated, or training is over
        if asked := self._agreed():
            self._save(trainer)
            # A checkpoint of this moment is taken for one after the validation. It is the better one only if the
            # validation takes so long that the job is killed.
            if not validation_follows(trainer):
                self._leave(trainer, asked, f"after step {trainer.global_step}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and leave; every other callback has seen the result."""
        ours = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not ours or not self._stepped or trainer.global_step == trainer.max_steps:
            return
        if asked := self._agreed():
            self._save(trainer)
            self._leave(trainer, asked, f"after the validation of step {trainer.global_step}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no longer."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can
        for number in _ASKED:
            before = signal.signal(number, self._note)
            self._handlers.setdefault(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked:
            raise KeyboardInterrupt
        self._asked = max(self._asked, _ASKED[signal.Signals(number)])

    def _agreed(self) -> int:
        """The most that any rank was asked for."""
        if self._group is None:
            return self._asked
        asked = torch.tensor(self._asked)
        torch.distributed.all_reduce(asked, ReduceOp.MAX, group=self._group)
        return int(asked)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(last_checkpoint(Path(trainer.default_root_dir)), weights_only=False)

    def _leave(self, trainer: Trainer, asked: int, when: str) -> NoReturn:
        if trainer.is_global_zero:
            queue = requeue() if asked == _REQUEUE else ""
            print(
                f"{trainer.default_root_dir}: stopped by a signal {when}. {queue}The same command goes on.", flush=True
            )
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        if trainer.local_rank and not (environment and environment.creates_processes_externally):
            # The first process started this one, and would be killed if it ended with another status.
            raise SystemExit(0)
        raise SystemExit(STOPPED if asked == _REQUEUE else INTERRUPTED)


def requeue() -> str:
    """Give this job, or this task of its array, back to Slurm's queue; what came of it, as a sentence."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if job is None:
        return ""
    if array is not None:
        # One task's job id may be that of the array, which would requeue all of it.
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        # Of a job that scancel ends, or that is past its time, Slurm says COMPLETING, and would take it back as well.
        state = _ask("squeue", "--noheader", "--format=%T", f"--jobs={job}").stdout.strip()
        if state != "RUNNING":
            return f"Slurm itself ends job {job} ({state or 'unknown'}), so it is not put back into the queue. "
        result = _ask("scontrol", "requeue", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Job {job} could not be put back into the queue ({error}); submit it again. "
    if result.returncode:
        return f"Slurm refuses to put job {job} back into the queue ({result.stderr.strip()}); submit it again. "
    return f"Job {job} is back in the queue. "


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
