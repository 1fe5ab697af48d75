import io

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.ema import EMA
from callbacks.sample_grid import SampleGrid
from dermsynth.data.modules import DreamBoothData
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.sampling import Sampling
from tests.builders import CLASSES, make_set

PROMPTS = ["a dermoscopic image of nevus", "a dermoscopic image of melanoma"]


@pytest.mark.parametrize("sanity", [0, 2])
def test_grids_of_the_same_seeds_show_the_base_and_then_the_averaged_weights(base, tmp_path, sanity):
    model = DreamBooth(base, sampling=Sampling(2, 2.0), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    untrained = model.sample([PROMPTS[0]], [9])[0]
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[EMA(decay=0.5), SampleGrid(PROMPTS, columns=3, seed=9)],
        num_sanity_val_steps=sanity,
    )
    trainer.fit(model, DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4))
    events = EventAccumulator(str(tmp_path)).Reload()
    grids = [np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in events.Images("samples")]
    assert [e.step for e in events.Images("samples")] == [0, 3]
    assert grids[0].shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    # Batched arithmetic may round differently in the last bit.
    assert np.abs(grids[0][:16, :16].astype(int) - untrained).max() <= 1
    # After training the module holds the average, which the last grid was drawn from.
    trained = model.sample([PROMPTS[1]], [10])[0]
    assert np.abs(grids[1][18:34, 18:34].astype(int) - trained).max() <= 1
    assert np.abs(grids[1].astype(int) - grids[0]).max() > 3
    assert PROMPTS[1].encode() in events.Tensors("samples/prompts/text_summary")[0].tensor_proto.string_val[0]


def test_a_model_that_has_diverged_is_shown_in_black_and_the_run_goes_on(base, tmp_path):
    model = DreamBooth(base, sampling=Sampling(1, 1.0))
    model.unet.conv_out.bias.data.fill_(torch.nan)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[SampleGrid(PROMPTS, columns=1)],
    )
    data = DreamBoothData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    with pytest.warns(UserWarning, match="2 of 2 sampled images are NaN"):
        trainer.fit(model, data)
    assert trainer.global_step == 1
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("samples")
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    assert not pixels[:16, :16].any()


def test_a_resumed_run_draws_at_the_validations_that_an_uninterrupted_one_does(base, tmp_path):
    """Every second validation, each after two steps: at 0, 4 and 8, though stopped after the third."""
    real = make_set(tmp_path / "real")

    def train(steps, ckpt_path=None):
        model = DreamBooth(base, sampling=Sampling(1, 1.0))
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            val_check_interval=2,
            check_val_every_n_epoch=None,
            logger=TensorBoardLogger(tmp_path / "log", name="", version=""),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[SampleGrid(PROMPTS, columns=1, every_n_validations=2)],
        )
        data = DreamBoothData(real=real, classes=CLASSES, size=16, batch_size=4)
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        # Frozen parts are in evaluation mode all the time, what is trained is back in the other.
        assert model.unet.training
        assert not model.parts.vae.training

    train(6)
    train(8, tmp_path / "c.ckpt")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in events.Images("samples")] == [0, 4, 8]
