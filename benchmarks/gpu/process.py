"""Work in a process of its own, so that its peak of memory is its own and its end is not ours."""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "out of memory"
_GRACE = 10  # seconds for a process to end by itself when its work is done
# What the command line would import by the names in a configuration.
_IMPORTED = [
    "benchmarks.gpu.sides",
    "callbacks.image_set_writer",
    "dermsynth.classification.classifier",
    "dermsynth.data.loading.generation",
    "dermsynth.data.loading.modules",
    "dermsynth.diffusion.dreambooth",
]


def alone(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float, log: Path) -> dict[str, Any]:
    """What `work` returns, or `{"failed": why}` where it raises, is killed, or takes too long.

    The process is forked from one that has imported what all need, so that each starts at once; that one has not asked
    for a GPU, as CUDA does not survive a fork.

    Args:
        work: a function of a module.
        arguments: its arguments.
        seconds: after which it is killed, with the processes that it has started.
        log: file of what it prints.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    log.touch()  # also where it is killed at once
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, log, work, arguments))
    process.start()
    sender.close()
    try:
        if not receiver.poll(max(seconds, 0)):
            return {"failed": f"stopped after {seconds:.0f} s"}
        told = receiver.recv()
        process.join(_GRACE)
        return told
    except EOFError:
        process.join()
        return {"failed": f"it was killed (exit status {process.exitcode})"}
    finally:
        process.kill()
        if process.pid:
            with contextlib.suppress(ProcessLookupError):  # it has ended, or not yet begun
                os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _tell(sender: Connection, log: Path, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # what it starts, such as loader processes, is killed with it
    with log.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        sender.send(work(*arguments))
    except BaseException as error:
        traceback.print_exc()
        first = next(iter(str(error).splitlines()), "")
        memory = OUT_OF_MEMORY in first
        sender.send({"failed": OUT_OF_MEMORY if memory else f"{type(error).__name__}: {first}"})
