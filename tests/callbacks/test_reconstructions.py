import io

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.reconstructions import Reconstructions
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.diffusion.autoencoder import Autoencoder
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set


def test_real_images_stand_above_their_reconstructions(base, tmp_path):
    data = ClassificationData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    model = Autoencoder(base)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        callbacks=[Reconstructions(images=2)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    events = EventAccumulator(str(tmp_path)).Reload().Images("val/reconstructions")
    assert [event.step for event in events] == [0, 2]
    sheet = np.asarray(Image.open(io.BytesIO(events[1].encoded_image_string)))
    assert sheet.shape[0] == 2 * 16 + 2
    pictures = sheet[:, -(2 * 16 + 2) :]
    assert (sheet[:, : -(2 * 16 + 2)] < 128).any(), "the rows are named"
    real = next(iter(data.val_dataloader()))["pixel_values"][:2]
    with torch.no_grad():
        made = model.vae.decode(model.vae.encode(real).latent_dist.mode()).sample
    for row, images in enumerate((real, made)):
        for column in range(2):
            expected = (images[column].permute(1, 2, 0).clamp(-1, 1).numpy() + 1) * 127.5
            found = pictures[18 * row : 18 * row + 16, 18 * column : 18 * column + 16]
            assert np.abs(found - expected).max() <= 1


def test_no_image_is_refused():
    with pytest.raises(InputError, match=r"Reconstructions\.images: 0 must be at least 1"):
        Reconstructions(images=0)
