import io

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.ema import EMA
from callbacks.sample_grid import SampleGrid
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set

PROMPTS = ["a dermoscopic image of nevus", "a dermoscopic image of melanoma"]


def trainer_of(folder, callbacks, **options):
    """One that logs into a folder and is silent."""
    return Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
        **options,
    )


@pytest.mark.parametrize("sanity", [0, 2])
def test_grids_of_the_same_seeds_show_the_base_and_then_the_averaged_weights(base, tmp_path, sanity):
    model = DreamBooth(base, sampling=Sampling(2, 2.0), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    untrained = model.sample([PROMPTS[0]], [9])[0]
    trainer = trainer_of(
        tmp_path,
        [EMA(decay=0.5), SampleGrid(PROMPTS, every_n_steps=3, columns=3, seed=9)],
        max_steps=3,
        num_sanity_val_steps=sanity,
    )
    trainer.fit(model, DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4))
    events = EventAccumulator(str(tmp_path)).Reload()
    sheets = [np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in events.Images("samples")]
    margin = sheets[0].shape[1] - (3 * 16 + 4)
    assert (sheets[0][:, :margin] < 128).any(), "each row says its prompt"
    grids = [sheet[:, margin:] for sheet in sheets]
    assert [e.step for e in events.Images("samples")] == [0, 3]
    assert grids[0].shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    # Batched arithmetic may round differently in the last bit.
    assert np.abs(grids[0][:16, :16].astype(int) - untrained).max() <= 1
    # After training the module holds the average, which the last grid was drawn from.
    trained = model.sample([PROMPTS[1]], [10])[0]
    assert np.abs(grids[1][18:34, 18:34].astype(int) - trained).max() <= 1
    assert np.abs(grids[1].astype(int) - grids[0]).max() > 3


@pytest.mark.parametrize("averaging", [[], [EMA(decay=0.5)]])
def test_the_last_grid_shows_the_weights_that_a_run_shorter_than_the_interval_ends_with(base, tmp_path, averaging):
    model = DreamBooth(base, sampling=Sampling(2, 2.0), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    grid = SampleGrid(PROMPTS, every_n_steps=100, columns=1)
    trainer = trainer_of(tmp_path, [*averaging, grid], max_steps=2, limit_val_batches=0)
    trainer.fit(model, DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4))
    events = EventAccumulator(str(tmp_path)).Reload().Images("samples")
    assert [event.step for event in events] == [0, 2]
    last = np.asarray(Image.open(io.BytesIO(events[1].encoded_image_string)))
    expected = model.sample([PROMPTS[0]], [0])[0]
    assert np.abs(last[:16, -16:].astype(int) - expected).max() <= 1


def test_a_model_that_has_diverged_is_shown_in_black_and_the_run_goes_on(base, tmp_path):
    model = DreamBooth(base, sampling=Sampling(1, 1.0))
    model.unet.conv_out.bias.data.fill_(torch.nan)
    trainer = trainer_of(tmp_path, [SampleGrid(PROMPTS, every_n_steps=2, columns=1)], max_steps=1, limit_val_batches=0)
    data = DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    with pytest.warns(UserWarning, match="2 of 2 sampled images are NaN"):
        trainer.fit(model, data)
    assert trainer.global_step == 1
    for event in EventAccumulator(str(tmp_path)).Reload().Images("samples"):
        pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert not pixels[:16, -16:].any()


def test_a_resumed_run_without_validation_draws_at_the_steps_that_an_uninterrupted_one_does(base, tmp_path):
    """After every fourth step, each of two batches: at 0, 4 and 8, and after the sixth, where the first run ends."""
    real = make_set(tmp_path / "real")

    def train(steps, *grids, ckpt_path=None):
        model = DreamBooth(
            base, train_text_encoder=True, sampling=Sampling(1, 1.0), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2)
        )
        trainer = trainer_of(
            tmp_path / "log",
            [EMA(decay=0.5), *grids, Keep(tmp_path / "c.ckpt", 6)],
            max_steps=steps,
            limit_val_batches=0,
            accumulate_grad_batches=2,
        )
        data = DreamBoothData(real=real, classes=CLASSES, size=16, batch_size=2)
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        # Frozen parts are in evaluation mode all the time, what is trained is back in the other.
        assert model.unet.training
        assert not model.parts.vae.training
        return model.state_dict()

    grid = SampleGrid(PROMPTS, every_n_steps=4, columns=1)
    train(6, grid)
    drawn = train(8, grid, ckpt_path=tmp_path / "c.ckpt")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in events.Images("samples")] == [0, 4, 6, 8]
    # The average that is drawn makes way for the weights again: they end as if nothing had been drawn.
    assert all(torch.equal(weight, drawn[name]) for name, weight in train(8).items())


class Keep(Callback):
    """Saves a checkpoint after a step."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path, weights_only=False)


def test_a_drawing_that_fails_leaves_the_model_as_it_was(base, tmp_path, monkeypatch):
    model = DreamBooth(base)
    drawing = SampleGrid(PROMPTS, every_n_steps=1)
    monkeypatch.setattr(drawing, "on_fit_start", lambda *_: None)
    drawing.prompts = [5]  # no prompt
    trainer = trainer_of(tmp_path, [drawing], max_steps=1, limit_val_batches=0)
    data = DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    with pytest.raises(ValueError, match="text input must be of type"):
        trainer.fit(model, data)
    assert model.unet.training


def test_steps_are_counted_from_one():
    with pytest.raises(InputError, match=r"SampleGrid\.every_n_steps: 0 must be at least 1"):
        SampleGrid(PROMPTS, every_n_steps=0)
