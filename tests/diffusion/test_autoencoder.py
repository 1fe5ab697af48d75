import pytest
import torch
from lightning import Trainer

from dermsynth.data.loading.modules import ClassificationData
from dermsynth.diffusion.autoencoder import Autoencoder, edge_loss
from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from dermsynth.run.schedules import WarmupCosine
from tests.builders import CLASSES, make_set
from tests.pretended_gpu import fit_on_pretended_gpu


def test_edge_loss_is_that_of_explicit_differences():
    a, b = torch.randn(2, 2, 3, 6, 4)
    expected = 0.0
    for x, y in ((a, b), (torch.nn.AvgPool2d(2)(a), torch.nn.AvgPool2d(2)(b))):
        dx = (x[..., 1:] - x[..., :-1]) - (y[..., 1:] - y[..., :-1])
        dy = (x[:, :, 1:] - x[:, :, :-1]) - (y[:, :, 1:] - y[:, :, :-1])
        expected += dx.abs().mean() + dy.abs().mean()
    torch.testing.assert_close(edge_loss(a, b), expected)
    assert edge_loss(a, a + 3) == pytest.approx(0, abs=1e-6)


def test_it_learns_and_exports_latents_of_unit_variance(base, tmp_path):
    data = ClassificationData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    # The schedule lets the encoder come to rest, as the recipes' do.
    model = Autoencoder(
        base,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
        lr_scheduler=lambda optimizer: WarmupCosine(optimizer, 0, 50),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=30,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    before = trainer.validate(model, data, verbose=False)[0]["val/psnr"]
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/psnr"] > before + 1
    model.export(tmp_path / "out", "diffusers")
    vae = load_parts(str(tmp_path / "out")).vae
    pixels = torch.cat([batch["pixel_values"] for batch in data.train_dataloader()])
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    assert float(latents.std(correction=0)) == pytest.approx(1, abs=0.05)


def test_no_step_waits_for_a_gpu(base, tmp_path):
    data = ClassificationData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    model = Autoencoder(base, optimizer=lambda parameters: torch.optim.AdamW(parameters, foreach=True))
    assert fit_on_pretended_gpu(model, data, tmp_path) == 2


def test_a_base_that_saw_another_train_split_is_refused(base, tmp_path):
    data = ClassificationData(real=make_set(tmp_path / "real"), classes=CLASSES, size=16, batch_size=4)
    model = Autoencoder(base)
    model.parts.provenance["train_split_sha256"] = "0" * 64
    with pytest.raises(InputError, match="fitted on another train split"):
        Trainer(accelerator="cpu", max_steps=1, logger=False, barebones=True).fit(model, data)
