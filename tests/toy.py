"""A model of three weights and its data, as a user would write them in a file of their own."""

import hashlib
import os
import resource
import signal
import time
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from dermsynth.errors import BrokenImageError, InputError
from dermsynth.run.checkpoint_facts import CheckpointFacts, check_kind


class Policy:
    def __init__(self, ratio: float = 0.0):
        if not 0 <= ratio <= 1:
            raise InputError(f"mix.ratio: {ratio} is outside [0, 1].")
        self.ratio = ratio


class Data(L.LightningDataModule):
    def __init__(self, rows: int = 8, batch_size: int = 2, classes: list[str] | None = None, mix: Policy | None = None):
        super().__init__()
        self.rows, self.batch_size, self.classes = rows, batch_size, classes

    def setup(self, stage):
        if self.rows < 1:
            raise InputError(f"data.rows: {self.rows} must be positive.")

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.linspace(0, 1, self.rows)[:, None]), batch_size=self.batch_size)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class Broadcasts(L.Callback):
    """Counts what rank 0 is asked for, or told by, between the first batch and the last."""

    def on_train_start(self, trainer, module):
        self.number, self.real = 0, torch.distributed.broadcast
        torch.distributed.broadcast = self.count

    def count(self, *args, **options):
        self.number += 1
        return self.real(*args, **options)

    def on_train_end(self, trainer, module):
        torch.distributed.broadcast = self.real
        Path(trainer.default_root_dir, f"broadcasts-{trainer.global_rank}").write_text(str(self.number))


class Broken(Data):
    """Its image is broken, as a loader process finds."""

    def __init__(self, kind: str = "BrokenImageError", mix: Policy | None = None):
        super().__init__(mix=mix)
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, index):
        try:
            raise OSError("the cause")
        except OSError as error:
            broken = BrokenImageError("a/b.png", "truncated.")
            raise (broken if self.kind == "BrokenImageError" else InputError(str(broken))) from error

    def train_dataloader(self):
        return DataLoader(self, num_workers=1)


class Line(L.LightningModule):
    """y = w x + b, drawn to zero. With `worse`, each validation's metric is worse than the one before."""

    def __init__(self, lr: float = 0.01, width: int = 1, worse: bool = False):
        super().__init__()
        self.lr, self.worse = lr, worse
        self.layer = torch.nn.Linear(1, width)

    def training_step(self, batch, index):
        return (self.layer(batch[0]) ** 2).mean()

    def validation_step(self, batch, index):
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("val/loss", float(self.global_step) if self.worse else loss)

    test_step = validation_step

    def predict_step(self, batch, index):
        return batch[0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

    def on_save_checkpoint(self, checkpoint):
        CheckpointFacts("line").into(checkpoint)

    def on_load_checkpoint(self, checkpoint):
        check_kind(checkpoint, "line")


class Diverging(Line):
    """Its loss is not a number in one batch, or that of validation always, or its gradients are infinite."""

    def __init__(self, nan_at: int | None = None, held_out: bool = False, gradients: bool = False):
        super().__init__()
        self.nan_at, self.held_out, self.gradients = nan_at, held_out, gradients

    def training_step(self, batch, index):
        # Once, and with weights that stay finite: nothing later would show it.
        once = self.nan_at == index + 4 * self.current_epoch
        return super().training_step(batch, index) + (float("nan") if once else 0)

    def validation_step(self, batch, index):
        self.log("val/loss", float("nan") if self.held_out else 1.0)

    def configure_gradient_clipping(self, optimizer, **_):
        for parameter in self.parameters():
            parameter.grad.fill_(float("inf") if self.gradients else 0)


class Labelled(Line):
    """One that takes classes, as the classifier does."""

    def __init__(self, classes: list[str], lr: float = 0.01):
        super().__init__(lr)
        self.classes = classes


class Fails(L.Callback):
    """Brings one rank down in the middle of training."""

    def __init__(self, rank: int = 1, how: str = "exception"):
        self.rank, self.how = rank, how

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank != self.rank or trainer.global_step < 3:
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20))
            torch.empty(2**30).fill_(0)
        raise RuntimeError("the cause")


class Held(L.Callback):
    """Holds its process in a hook until the run's folder has `release`; `held-RANK` is touched again and again.

    If nobody lets it go, it ends after a time.
    """

    def __init__(self, hook: str):
        setattr(self, hook, self._hold)

    def _hold(self, trainer, *_):
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + 1200
        while time.monotonic() < until and not (folder / "release").exists():
            (folder / f"held-{trainer.global_rank}").touch()
            time.sleep(0.01)


class Noting(Labelled):
    """Writes what its process is shown to `shown-RANK` in the run's folder: a line per batch, its images and pixels."""

    def training_step(self, batch, index):
        return (self.layer(self._note("train", batch)) ** 2).mean()

    def validation_step(self, batch, index):
        self.log("val/loss", (self.layer(self._note("val", batch)) ** 2).mean(), sync_dist=True, batch_size=1)

    def _note(self, stage, batch):
        pixels = batch["pixel_values"]
        digest = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        with (Path(self.trainer.default_root_dir) / f"shown-{self.global_rank}").open("a") as file:
            file.write(f"{stage} {' '.join(batch['image_id'])} {digest}\n")
        return pixels.mean(dim=(1, 2, 3))[:, None]
