"""One command on several ranks, each in a process of its own, as `torchrun` or Slurm would start them.

Processes are forked from a server that has imported everything, which spares a rank most of its 10 seconds.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["dermsynth.training", "dermsynth.diffusion.dreambooth", "dermsynth.classification.classifier", "tensorboard"]
)


class Ranks:
    """The processes of `python -m dermsynth WORDS`.

    Args:
        words: the command's arguments.
        count: ranks.
        folder: where the command runs.
        name: of the logs, `<name>-0.log` and so on in that folder.
    """

    def __init__(self, words: list[str], count: int, folder: Path, name: str = "rank") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._logs = [folder / f"{name}-{rank}.log" for rank in range(count)]
        cluster = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "NODE_RANK": "0"}
        self.processes = [
            _context.Process(target=_run, args=(words, {**cluster, "LOCAL_RANK": str(rank)}, folder, log))
            for rank, log in enumerate(self._logs)
        ]
        for process in self.processes:
            process.start()

    def send(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank that may have ended already."""
        pid = self.processes[rank].pid
        assert pid is not None
        if self.processes[rank].is_alive():
            os.kill(pid, number)

    def statuses(self, seconds: float = 60) -> list[int] | None:
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
        return None if alive else [process.exitcode or 0 for process in self.processes]

    def log(self, rank: int) -> str:
        """What a rank has printed."""
        return self._logs[rank].read_text(encoding="utf-8")


def _run(words: list[str], cluster: dict[str, str], folder: Path, log: Path) -> None:
    import torch

    from dermsynth.cli import main

    os.environ.update(cluster)
    os.chdir(folder)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    torch.set_num_threads(1)
    sys.exit(main(words))
