"""Real processes for tests, one or the ranks of a distributed run.

They are forked from one that has imported everything, as importing takes longer than all that is tested.
"""

import multiprocessing
import os
import socket
import sys

import torch

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "callbacks.ema",
        "dermsynth.classification.classifier",
        "dermsynth.data.modules",
        "dermsynth.diffusion.dreambooth",
        "dermsynth.training",
        "tests.interruptions",
    ]
)
TIMEOUT = 240


def start(work, ranks, *arguments):
    """Processes that call `work` with a rank and the arguments, as Lightning's DDP expects them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [PROCESSES.Process(target=_work, args=(work, rank, ranks, port, arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def _work(work, rank, ranks, port, arguments):
    sys.argv = ["dermsynth"]
    torch.set_num_threads(1)
    if ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    work(rank, *arguments)
