"""Faults of diffusers' `train_dreambooth.py`, and of the trainers after it, that ours does not have.

Those of these that are not below, and where they are tested:

- every rank draws the same noise and timesteps: test_dreambooth.py,
  `test_noise_differs_between_samples_steps_epochs_and_seeds_and_not_by_the_number_of_ranks`
- every rank makes the same class images: tests/data/loading/test_generation.py,
  `test_generation_gives_each_image_a_seed_of_its_index_alone`;
  tests/callbacks/test_image_set_writer.py, `test_two_processes_make_the_images_of_one`
- `snr_gamma` with class images crashes, or weighs only the instances: test_dreambooth.py,
  `test_min_snr_weighs_each_sample_of_the_batch`
- a resumed run skips no data, takes a step too many and ends with other weights: test_dreambooth.py,
  `test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one`
- noise is added in half precision, in 192 levels of 1,000: test_objective.py,
  `test_half_precision_latents_keep_a_thousand_noise_levels`; test_dreambooth.py,
  `test_half_precision_weights_train_with_float32_noise_levels`
- class images are JPEG, the instances are not: tests/callbacks/test_image_set_writer.py,
  `test_generated_images_are_png_as_the_prepared_ones_are`
- every step waits for the device: test_speed.py,
  `test_all_of_a_step_is_on_the_gpu_and_waits_for_none_of_it`
- LoRA files that A1111 and ComfyUI cannot read: test_lora.py, `test_kohyas_…`
- caches that keep one sample of a latent, take another VAE's, or pair it with another's prompt, and ranks that see a
  share of it: tests/data/loading/test_latent_cache.py, test_cached_training.py
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from transformers import CLIPTextModel

from callbacks.sample_grid import SampleGrid
from dermsynth.data.loading.modules import DreamBoothData
from dermsynth.data.sets import manifest
from dermsynth.data.sets.leaks import VERIFIED
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from dermsynth.run.schedules import WarmupCosine
from tests.diffusion.test_dreambooth import data_of, trainer_of
from tests.processes import exit_codes, start
from tests.tools.drawn import contents, download, go


def optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


class Watch(Callback):
    """Keeps the learning rates of each step."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["full", "lora"])
def test_a_warm_up_is_honoured_before_a_constant_rate_and_so_is_the_text_encoders_own(base, sets, tmp_path, lora):
    watch = Watch()
    model = DreamBooth(
        base,
        train_text_encoder=True,
        text_encoder_lr=1e-4,
        lora=lora,
        optimizer=optimizer,
        lr_scheduler=lambda o: WarmupCosine(o, warmup_steps=4, total_steps=6, floor=1.0),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer_of(tmp_path, 6, [watch], limit_val_batches=0).fit(model, data_of(sets))
    expected = [[share * 1e-3, share * 1e-4] for share in (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)]
    assert watch.rates == [pytest.approx(rates) for rates in expected]
    # AdamW's steps are about as long as the rate.
    moved = dict.fromkeys(("unet", "text_encoder"), 0.0)
    for name, value in model.state_dict().items():
        part = name.partition(".")[0]
        if part in moved:
            moved[part] = max(moved[part], float((value - before[name]).abs().max()))
    assert 5 < moved["unet"] / moved["text_encoder"] < 20


def test_a_rate_for_a_text_encoder_that_is_not_trained_is_refused(base):
    with pytest.raises(InputError, match=r"model\.text_encoder_lr: it is not trained"):
        DreamBooth(base, text_encoder_lr=1e-5)


def test_what_is_said_to_be_tested_elsewhere_is():
    names = ["".join(name.split()) for name in re.findall(r"`(test_[^`]+)`", __doc__)]
    sources = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parents[1].rglob("test_*.py"))
    assert len(names) >= 8
    for name in names:
        # One that ends in … stands for all that begin so.
        assert f"def {name.removesuffix('…')}{'' if name.endswith('…') else '('}" in sources, name


class Listing:
    """What `os.scandir` gives, in an order of our own."""

    def __init__(self, entries):
        self._entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        pass


def test_the_order_in_which_folders_are_listed_changes_nothing(tmp_path, monkeypatch):
    drawn = download(tmp_path / "drawn")
    for number, file in enumerate(sorted((drawn / "train").iterdir())):
        folder = tmp_path / "classes" / ("benign", "malignant")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    made, scandir, listdir = [], os.scandir, os.listdir
    for backwards in (False, True):

        def scanned(place=".", backwards=backwards):
            return Listing(sorted(scandir(place), key=lambda entry: entry.name, reverse=backwards))

        def listed(place=".", backwards=backwards):
            return sorted(listdir(place), reverse=backwards)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", scanned)
            patch.setattr(os, "listdir", listed)
            go(tmp_path / "classes", tmp_path / str(backwards) / "set")
            options = {"classes": ["benign", "malignant"], "size": 16, "batch_size": 2}
            data = DreamBoothData(real=tmp_path / str(backwards) / "set", **options)
            data.setup("fit")
            made.append([batch["image_id"] for batch in data.train_dataloader()])
    # The note of verified files names their times of change.
    told = [{k: v for k, v in contents(tmp_path / way).items() if VERIFIED not in k} for way in ("False", "True")]
    assert told[0] == told[1]
    assert made[0] == made[1]
    assert made[0]


def test_stray_files_change_nothing(sets, tmp_path):
    batches = []
    for stray in (False, True):
        real, prior = (shutil.copytree(folder, tmp_path / f"{stray}/{folder.name}") for folder in sets)
        if stray:
            for folder in (real, prior, real / "images", prior / "images"):
                (folder / ".DS_Store").write_bytes(b"\0")
                (folder / "a.png").write_bytes(b"no image")
        data = data_of((real, prior))
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    assert [batch["image_id"] for batch in batches[0]] == [batch["image_id"] for batch in batches[1]]
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(*batches, strict=True))


def test_a_base_in_a_folder_is_trained_without_network(base, sets, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("network"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("network"))
    model = DreamBooth(base, optimizer=optimizer)
    trainer = trainer_of(tmp_path, 1, limit_val_batches=1)
    trainer.fit(model, data_of(sets))
    assert trainer.global_step == 1


def test_samples_and_validations_load_each_part_once(base, sets, tmp_path, monkeypatch):
    loaded = []
    for kind in (AutoencoderKL, CLIPTextModel, UNet2DConditionModel):
        load = kind.from_pretrained

        def counting(*arguments, load=load, name=kind.__name__, **options):
            loaded.append(name)
            return load(*arguments, **options)

        monkeypatch.setattr(kind, "from_pretrained", counting)
    model = DreamBooth(base, optimizer=optimizer, sampling=Sampling(1, 1.0))
    grid = SampleGrid(["a dermoscopic image of nevus"], every_n_steps=1, columns=1)
    trainer = trainer_of(tmp_path, 2, [grid], limit_val_batches=1, val_check_interval=1)
    trainer.logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer.fit(model, data_of(sets))
    assert sorted(loaded) == ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"]
    assert list(tmp_path.glob("events.out.tfevents*"))


class Keep(Callback):
    """Writes down what a rank has seen and learned."""

    def __init__(self, folder):
        self.folder, self.held_out = folder, []

    def on_validation_batch_end(self, trainer, model, outputs, batch, number):
        self.held_out += batch["image_id"]

    def on_validation_end(self, trainer, model):
        torch.save(self.held_out, self.folder / f"held-out-{trainer.global_rank}.pt")

    def on_train_batch_end(self, trainer, model, outputs, batch, number):
        found = {
            "ids": batch["image_id"],
            "loss": outputs["loss"].detach(),
            "logged": trainer.callback_metrics["train/loss"],
            "weights": model.unet.state_dict(),
        }
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


def train_a_step(rank, folder, base, sets):
    """What each of two ranks does."""
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=1,
        callbacks=[Keep(folder)],
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        val_check_interval=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(DreamBooth(base), datamodule=data_of(sets))


@pytest.mark.slow
def test_the_logged_loss_is_that_of_all_ranks_and_none_waits_while_others_validate(base, sets, tmp_path):
    assert exit_codes(start(train_a_step, 2, tmp_path, base, sets)) == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert not {*one["ids"]} & {*other["ids"]}
    assert one["loss"] != other["loss"]
    assert one["logged"] == other["logged"] == pytest.approx(float(one["loss"] + other["loss"]) / 2)
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    # Each validates a share of the same size.
    shares = [torch.load(tmp_path / f"held-out-{rank}.pt", weights_only=True) for rank in range(2)]
    expected = [record.image_id for record in manifest.read(sets[0]).records if record.split == "val"]
    assert sorted(shares[0] + shares[1]) == sorted(expected)
    assert len(shares[0]) == len(shares[1]) == len(expected) / 2
