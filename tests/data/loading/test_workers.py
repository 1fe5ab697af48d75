import multiprocessing
import signal
import subprocess
import time

from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.loading.workers import leave_signals_to_the_trainer
from tests.builders import CLASSES, make_set


def test_a_loader_process_dies_of_the_trainers_signal_alone(tmp_path):
    data = ClassificationData(real=make_set(tmp_path), classes=CLASSES, size=16, batch_size=2, num_workers=1)
    data.setup("fit")
    batches = iter(data.val_dataloader())
    next(batches)
    (worker,) = multiprocessing.active_children()
    for number in ("TERM", "USR1", "INT"):
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    next(batches)
    worker.join(0.2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_where_nobody_can_tell_who_sent_it_the_signal_ends_a_loader_process(monkeypatch):
    monkeypatch.delattr(signal, "sigwaitinfo")  # as on macOS
    processes = multiprocessing.get_context("fork")
    ready = processes.Event()

    def load():
        leave_signals_to_the_trainer(0)
        ready.set()
        time.sleep(60)

    worker = processes.Process(target=load)
    worker.start()
    assert ready.wait(10)
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == -signal.SIGTERM
