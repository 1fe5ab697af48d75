"""DreamBooth from the latent cache, through the real Trainer."""

import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import CLIPTextModel

from callbacks.ema import EMA
from callbacks.sample_grid import SampleGrid
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.mixing.policies import PriorPreservation
from dermsynth.data.sets import manifest
from dermsynth.diffusion import dreambooth
from dermsynth.diffusion.autoencoder import Autoencoder
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set
from tests.processes import Ranks


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    real = make_set(root / "real")
    split = manifest.train_split_sha256(manifest.read(real).records)
    return real, make_set(root / "prior", dict.fromkeys(CLASSES, 4), "train", "synthetic", train_split_sha256=split)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, base, sets):
    """A complete cache, of both splits."""
    folder = tmp_path_factory.mktemp("cache")
    fit(base, sets, folder, folder / "run", steps=1)
    return folder


def fit(
    base, sets, latent_cache, folder, steps=6, callbacks=(), logger=False, precision="32-true", mix=True, **options
):
    real, prior = sets
    data = DreamBoothData(
        real=real,
        synthetic=[prior],
        classes=CLASSES,
        size=16,
        batch_size=4,
        mix=PriorPreservation() if mix else None,
        latent_cache=latent_cache,
    )
    options = {"optimizer": lambda p: torch.optim.SGD(p, lr=1e-2), "sampling": Sampling(1, 1.0), **options}
    model = DreamBooth(base, **options)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        logger=logger,
        precision=precision,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
    )
    trainer.fit(model, data)
    return model, trainer


def loaded(model):
    return {"vae", "text_encoder"} & set(vars(model.parts))


@pytest.mark.parametrize(
    "options", [{}, {"lora": LoRA(rank=2)}, {"objective": Objective(caption_dropout=0.5)}, {"precision": "bf16-true"}]
)
def test_training_from_a_complete_cache_loads_neither(base, sets, cache, tmp_path, monkeypatch, options):
    for part in (AutoencoderKL, CLIPTextModel):
        monkeypatch.setattr(part, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    model, trainer = fit(base, sets, cache, tmp_path, **options)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert not loaded(model)
    assert not any(name.startswith(("vae", "text_encoder")) for name, _ in model.named_parameters())
    assert trainer.callback_metrics["val/loss"].isfinite()
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert saved["dermsynth"]["base_sha256"]


def test_filling_it_lets_go_of_them_before_training(base, sets, tmp_path):
    model, _ = fit(base, sets, tmp_path / "cache", tmp_path)
    assert not loaded(model)
    assert len(list(tmp_path.glob("cache/*/*.safetensors"))) == 2


@pytest.mark.parametrize("options", [{}, {"objective": Objective(caption_dropout=0.5)}, {"train_text_encoder": True}])
def test_it_ends_near_where_training_without_it_ends(base, sets, tmp_path, options):
    cached, _ = fit(base, sets, tmp_path / "cache", tmp_path, **options)
    plain, _ = fit(base, sets, None, tmp_path, **options)
    start = DreamBooth(base)
    moved, apart = 0.0, 0.0
    for name, weight in plain.unet.state_dict().items():
        moved += float((weight - start.unet.state_dict()[name]).square().sum())
        apart += float((weight - cached.unet.state_dict()[name]).square().sum())
    # float16 has 11 bits: latents differ by 5e-4 of themselves.
    assert moved > 0
    assert (apart / moved) ** 0.5 < 1e-3
    assert loaded(cached) == ({"text_encoder"} if options.get("train_text_encoder") else set())


def test_latents_are_drawn_afresh_from_the_same_moments(base, sets, cache, tmp_path, monkeypatch):
    seen = {}
    draw = dreambooth.draw_latents

    def noted(moments, *rest):
        latents = draw(moments, *rest)
        if torch.is_grad_enabled():  # validation draws the same each time
            for one, drawn in zip(moments, latents, strict=True):
                seen.setdefault(one.numpy().tobytes(), []).append(drawn)
        return latents

    monkeypatch.setattr(dreambooth, "draw_latents", noted)
    fit(base, sets, cache, tmp_path, steps=60)
    again = [drawn for drawn in seen.values() if len(drawn) > 1]
    assert sum(map(len, seen.values())) == 240
    assert len(seen) <= 24 * 8
    assert len(again) > 20
    assert all(not torch.equal(a, b) for a, b, *_ in again)


def test_samples_and_averaging_work_beside_it(base, sets, cache, tmp_path):
    callbacks = [EMA(decay=0.5), SampleGrid(["melanoma"], every_n_steps=3, columns=2)]
    model, trainer = fit(
        base,
        sets,
        cache,
        tmp_path,
        steps=3,
        callbacks=callbacks,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
    )
    average = callbacks[0].average.module
    assert {name for name, _ in average.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert loaded(model) == {"vae", "text_encoder"}  # for the samples
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert model.sample(["melanoma"], [3]).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("cached", [True, False])
def test_sampling_and_training_work_in_every_precision(base, sets, cache, tmp_path, precision, cached):
    model, trainer = fit(
        base,
        sets,
        cache if cached else None,
        tmp_path,
        steps=2,
        precision=precision,
        callbacks=[SampleGrid(["melanoma"], every_n_steps=1, columns=1)],
        logger=TensorBoardLogger(tmp_path, name="", version=""),
    )
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert model.parts.vae.dtype == model.unet.dtype


def test_an_autoencoder_in_training_has_nothing_to_cache(base, sets, tmp_path):
    data = DreamBoothData(real=sets[0], classes=CLASSES, size=16, batch_size=4, latent_cache=tmp_path)
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match="this model has no frozen autoencoder"):
        trainer.fit(Autoencoder(base), data)


def test_two_processes_of_a_real_run_fill_and_use_it(base, sets, tmp_path):
    real, prior = sets
    config = {
        "trainer": {
            "accelerator": "cpu",
            "precision": "32-true",
            "strategy": "ddp",
            "devices": 2,
            "max_steps": 4,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "model": {"class_path": "dermsynth.diffusion.dreambooth.DreamBooth", "init_args": {"base": base}},
        "data": {
            "class_path": "dermsynth.data.loading.modules.DreamBoothData",
            "init_args": {
                "real": str(real),
                "synthetic": [str(prior)],
                "classes": CLASSES,
                "size": 16,
                "batch_size": 2,
                "mix": {"class_path": "dermsynth.data.mixing.policies.PriorPreservation"},
                "latent_cache": str(tmp_path / "cache"),
            },
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    ranks = Ranks(["fit", "--config", "config.yaml", "--run", "run"], 2, tmp_path)
    assert ranks.statuses() == [0, 0], ranks.log(0)
    files = list(tmp_path.glob("cache/moments-*/*.safetensors"))
    assert len(files) == 2  # one of each process
    assert (tmp_path / "run/finished").read_text().startswith("4 steps")
