import multiprocessing
import subprocess

from dermsynth.data.modules import ClassificationData
from tests.builders import CLASSES, make_set


def test_a_loader_process_dies_of_the_trainers_signal_alone(tmp_path):
    real = make_set(tmp_path / "real")
    data = ClassificationData(real=real, classes=CLASSES, size=16, batch_size=2, num_workers=1)
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
