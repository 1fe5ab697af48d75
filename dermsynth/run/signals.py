"""SIGTERM and SIGUSR1 end a process where no callback takes them; Lightning's own handlers are set in no stage."""

import functools
import os
import signal
import subprocess
from types import FrameType
from typing import Any

from lightning import Trainer


def take_signals_from_lightning(trainer: Trainer) -> None:
    """Let SIGTERM end a process, as SIGUSR1 does, where no callback takes it.

    Lightning's handlers save, or ask the other ranks, in the middle of whatever runs, which can hang; `predict` would
    not stop at all. What remains of them: the processes that Lightning itself started end with their first.
    """
    register = functools.partial(_end_what_lightning_started, trainer)
    trainer._signal_connector.register_signal_handlers = register  # type: ignore[method-assign]
    # What the handler noted all ranks would ask of the first at each batch, and the host wait for the device's answer.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _end_what_lightning_started(trainer: Trainer) -> None:
    if started := getattr(trainer.strategy.launcher, "procs", []):
        ends = functools.partial(_end_with, started)
        before: dict[Any, Any] = {number: signal.signal(number, ends) for number in (signal.SIGTERM, signal.SIGUSR1)}
        trainer._signal_connector._original_handlers = before


def _end_with(processes: list[subprocess.Popen[bytes]], number: int, frame: FrameType | None) -> None:
    for process in processes:
        process.send_signal(number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _nothing() -> None:
    pass
