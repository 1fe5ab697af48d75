"""SIGTERM and SIGUSR1 end a process where no callback takes them; Lightning's own handlers are set in no stage."""

import functools
import os
import signal
import subprocess
from types import FrameType
from typing import Any

from lightning import Trainer

from dermsynth.run.seams import replace_signal_handlers, started_processes


def take_signals_from_lightning(trainer: Trainer) -> None:
    """Let SIGTERM end a process, as SIGUSR1 does, where no callback takes it.

    With Lightning's handlers `predict` would not stop at all. What remains of them: the processes that Lightning itself
    started end with their first.
    """
    replace_signal_handlers(trainer, functools.partial(_end_what_lightning_started, trainer))


def _end_what_lightning_started(trainer: Trainer) -> dict[int, Any]:
    """The handlers of before."""
    started = started_processes(trainer)
    ends = functools.partial(_end_with, started)
    return {number: signal.signal(number, ends) for number in (signal.SIGTERM, signal.SIGUSR1)} if started else {}


def _end_with(processes: list[subprocess.Popen[bytes]], number: int, frame: FrameType | None) -> None:
    for process in processes:
        process.send_signal(number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
