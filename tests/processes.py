"""Real processes for tests, one or the ranks of a distributed run.

They are forked from one that has imported everything, as importing takes longer than all that is tested.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "albumentations.pytorch",  # the commands import it, schedulers and more when they need them
        "callbacks.ema",
        "callbacks.preemption",
        "dermsynth.classification.classifier",
        "dermsynth.data.loading.modules",
        "dermsynth.diffusion.dreambooth",
        "dermsynth.run.schedules",
        "dermsynth.run.training_cli",
        "diffusers.schedulers.scheduling_unipc_multistep",
        "tests.interruptions",
        "torch.utils.serialization",
        "transformers.models.vit.modeling_vit",
    ]
)
TIMEOUT = 600  # seconds until a process counts as hung, on a machine that is busy with other work
ROOT = Path(__file__).parents[1]


def start(work, ranks, *arguments):
    """Processes that call `work` with a rank and the arguments, as Lightning's DDP expects them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [PROCESSES.Process(target=_work, args=(work, rank, ranks, port, arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes):
    """How they ended; None of one that hangs."""
    for process in processes:
        process.join(TIMEOUT)
    return [process.exitcode for process in processes]


class Ranks:
    """`python -m dermsynth WORDS` on so many ranks, each started as `torchrun` or Slurm would.

    Args:
        words: the command's arguments.
        count: ranks.
        folder: where the command runs.
        name: of the logs, `<name>-0.log` and so on in that folder.
    """

    def __init__(self, words: list[str], count: int, folder: Path, name: str = "rank") -> None:
        self._logs = [folder / f"{name}-{rank}.log" for rank in range(count)]
        self.processes = start(_command, count, words, folder, name)

    def send(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank that may have ended already."""
        with suppress(ProcessLookupError):  # it may end in between, and is no child of this process
            if self.processes[rank].is_alive():
                os.kill(self.processes[rank].pid, number)

    def statuses(self, seconds: float = TIMEOUT) -> list[int] | None:
        """How the ranks ended, negative for a signal; None if one was still there, and had to be killed."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        alive = [process for process in self.processes if process.is_alive()]
        for rank in range(len(self.processes)):
            self.send(rank, signal.SIGUSR2)  # its log shall say where it waits
        for process in alive:
            process.join(1)
            process.kill()
            process.join()
        return None if alive else [process.exitcode for process in self.processes]

    def log(self, rank: int) -> str:
        """What a rank has printed."""
        return self._logs[rank].read_text(encoding="utf-8")


def _work(work, rank, ranks, port, arguments):
    sys.argv = ["dermsynth"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it runs in the background
    torch.set_num_threads(1)
    if ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    work(rank, *arguments)


def _command(rank, words, folder, name):
    from dermsynth.cli import main

    os.chdir(folder)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    log = os.open(folder / f"{name}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    sys.exit(main(words))
