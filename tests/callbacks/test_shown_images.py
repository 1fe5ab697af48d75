import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.shown_images import ShownImages
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.mixing.policies import Ratio
from dermsynth.data.sets import manifest
from tests.builders import CLASSES, make_set
from tests.processes import exit_codes, start

REAL, MADE = (5, 2, 2), (2, 3, 4)  # of each class; an epoch of Ratio(0.5) shows each once


class Remembering(L.LightningModule):
    """Trains one number and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch["image_id"]))
        return self.number**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PowerCut(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


@pytest.fixture
def sets(tmp_path):
    real = make_set(tmp_path / "real", dict(zip(CLASSES, [2 * n for n in REAL], strict=True)))
    split = manifest.train_split_sha256(manifest.read(real).records)
    counts = dict(zip(CLASSES, MADE, strict=True))
    return real, make_set(tmp_path / "made", counts, "train", "synthetic", train_split_sha256=split)


def data_of(sets, batch_size=6, **options):
    real, made = sets
    mix = Ratio(0.5)
    return ClassificationData(
        real=real, synthetic=[made], classes=CLASSES, size=16, batch_size=batch_size, mix=mix, **options
    )


def fit(sets, folder, *callbacks, model=None, ckpt_path=None, workers=0, **options):
    trainer = L.Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[ShownImages(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        limit_val_batches=0,
        use_distributed_sampler=False,
        **{"max_epochs": 3, **options},
    )
    model = model or Remembering()
    trainer.fit(model, datamodule=data_of(sets, num_workers=workers), ckpt_path=ckpt_path, weights_only=True)
    return model


def logged(folder):
    """step -> (real, generated) counts of each class."""
    events = EventAccumulator(str(folder)).Reload()
    found = {}
    for row, origin in enumerate(("real", "synthetic")):
        for column, name in enumerate(CLASSES):
            for event in events.Scalars(f"shown/{origin}/{name}"):
                found.setdefault(event.step, [[0] * 3, [0] * 3])[row][column] = event.value
    return found


def test_each_epoch_logs_what_the_model_was_shown(sets, tmp_path):
    model = fit(sets, tmp_path / "run", max_steps=8, max_epochs=-1)
    found = logged(tmp_path / "run")
    assert found == {3: [list(REAL), list(MADE)], 6: [list(REAL), list(MADE)]}, "the third epoch is cut short"
    assert len(model.seen) == 8


def test_a_run_of_less_than_an_epoch_logs_how_far_it_went(sets, tmp_path):
    model = fit(sets, tmp_path / "run", max_steps=2, max_epochs=-1)
    shown = [image_id for batch in model.seen for image_id in batch]
    expected = [[sum(f"{o}_{name}" in i for i in shown) for name in CLASSES] for o in "rs"]
    assert logged(tmp_path / "run") == {2: expected}


@pytest.mark.parametrize(("stop", "steps"), [(5, [6, 9]), (3, [3, 6, 9])])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_remaining_batches_and_goes_on_counting(sets, tmp_path, stop, steps, workers):
    straight = fit(sets, tmp_path / "straight")
    keeper = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    interrupted = Remembering()
    with pytest.raises(RuntimeError, match="power cut"):
        fit(sets, tmp_path / "cut", PowerCut(stop), keeper, model=interrupted, workers=workers)
    resumed = fit(sets, tmp_path / "resumed", ckpt_path=tmp_path / f"step={stop}.ckpt", workers=workers)
    assert interrupted.seen + resumed.seen == straight.seen
    assert logged(tmp_path / "resumed") == {step: [list(REAL), list(MADE)] for step in steps}


def train(rank, folder):
    """What each of two ranks does."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        callbacks=[ShownImages(), ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
        logger=TensorBoardLogger(folder / "two", name="", version=""),
        enable_progress_bar=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(Remembering(), datamodule=data_of((folder / "real", folder / "made"), batch_size=3))


def test_two_ranks_log_and_save_their_sum(sets, tmp_path):
    assert exit_codes(start(train, 2, tmp_path)) == [0, 0]
    assert logged(tmp_path / "two") == {step: [list(REAL), list(MADE)] for step in (3, 6)}
    saved = torch.load(tmp_path / "step=5.ckpt", weights_only=True)["shown"]
    assert (saved["epoch"], int(saved["counts"].sum())) == (1, 12)
