"""What a process of a job sees, printed; and one that can be held where it starts, made slow, or lose a rank."""

import os
import signal
import time
from pathlib import Path

from lightning import Callback


class Seen(Callback):
    """Copied into the project's folder by the tests, as a user's own callback would lie there."""

    def setup(self, trainer, pl_module, stage):
        if Path(trainer.default_root_dir, "broken").exists():
            if trainer.global_rank == 1:
                raise RuntimeError("this process alone is broken")
            time.sleep(600)
        self._hold(trainer, trainer.state.fn.value)

    def on_train_start(self, trainer, pl_module):
        self._hold(trainer, "train")  # before Preemption, which saves and so comes later, listens
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        text = f"rank {trainer.global_rank} of {trainer.world_size} on {os.environ.get('SLURMD_NODENAME')}: GPUs {gpus}"
        print(f"{text}, from step {trainer.global_step}", flush=True)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        # While the file is there, so that a signal finds the training at work on a machine of any speed.
        if Path(trainer.default_root_dir, "slow").exists():
            time.sleep(0.5)
            print(f"rank {trainer.global_rank} is at step {trainer.global_step}", flush=True)
        if Path(trainer.default_root_dir, "kill").exists():
            if trainer.global_rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)  # as one that waits for the other without end

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        print(f"batch {batch_idx} is generated", flush=True)
        while Path(trainer.default_root_dir, "slow").exists():
            time.sleep(0.1)

    def _hold(self, trainer, where):
        file = Path(trainer.default_root_dir, f"hold-{where}")
        if file.exists():
            print(f"rank {trainer.global_rank} is held", flush=True)
        while file.exists():
            time.sleep(0.1)
