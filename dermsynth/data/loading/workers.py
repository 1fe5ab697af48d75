"""How a loader process takes the signals that Slurm and a terminal send to every process of a job."""

import os
import signal
import threading


def leave_signals_to_the_trainer(worker: int) -> None:
    """Make a DataLoader's worker deaf to what is sent to every process of a job; its `worker_init_fn`.

    Args:
        worker: its number.
    """
    # Slurm and Ctrl-C send them to every process; a worker that died of one would end the training on the spot.
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS cannot tell who sent a signal: there SIGTERM ends a worker as ever
        return
    # SIGTERM is also how the trainer ends a worker. Only a thread that waits for it learns who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
