"""Callbacks that stop a training, and the runs that tests stop with them."""

import resource
from pathlib import Path

import torch
import yaml
from lightning import Callback

from dermsynth.cli import main
from tests.builders import CLASSES, make_set


class StoppedError(Exception):
    """What happens to a training."""


class AtEachBatch(Callback):
    """Raises at the start of each batch and validation of the run, once: every attempt comes one further.

    Args:
        notes: folder that remembers where it was raised.
    """

    def __init__(self, notes: Path) -> None:
        self.notes = Path(notes)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._stop(f"{trainer.current_epoch}-{batch_idx}")

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self._stop(f"validation-{trainer.fit_loop.total_batch_idx}")

    def _stop(self, name):
        note = self.notes / name
        if not note.exists():
            note.touch()
            raise StoppedError


class DiskFull(Callback):
    """No file can grow beyond a size, from a step on.

    Args:
        step: optimizer steps before.
        size: bytes.
    """

    def __init__(self, step: int, size: int) -> None:
        self.step, self.size = step, size

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


def dreambooth(folder, base, *, lora=False, ema=False, stops=False, cache=False, accumulate=1, **trainer):
    """`recipe.yaml`: 6 + 6 images in batches of 2, so an epoch is 6 batches."""
    real = make_set(folder / "real", dict.fromkeys(CLASSES, 4))
    prior = make_set(folder / "prior", dict.fromkeys(CLASSES, 2), "train", "synthetic")
    model = {
        "base": base,
        "train_text_encoder": lora,
        "lora": {"rank": 2, "alpha": 2.0} if lora else None,
        "sampling": {"steps": 2, "guidance_scale": 1.0},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
        "lr_scheduler": {
            "class_path": "dermsynth.run.schedules.WarmupCosine",
            "init_args": {"warmup_steps": 2, "total_steps": 40},
        },
    }
    data = {"synthetic": [str(prior)], "mix": {"class_path": "dermsynth.data.mixing.policies.PriorPreservation"}}
    if cache:
        data["latent_cache"] = str(folder / "latents")
    return _recipe(
        folder,
        {"class_path": "dermsynth.diffusion.dreambooth.DreamBooth", "init_args": model},
        {
            "class_path": "dermsynth.data.loading.modules.DreamBoothData",
            "init_args": {"real": str(real), "classes": CLASSES, "size": 16, "batch_size": 2, **data},
        },
        [{"class_path": "callbacks.ema.EMA", "init_args": {"decay": 0.9}}] if ema else [],
        {"monitor": "val/loss", "mode": "min"},
        {"accumulate_grad_batches": accumulate, **trainer},
        [{"class_path": "callbacks.preemption.Preemption"}] if stops else [],
    )


def classifier(folder, **trainer):
    """The same for a ViT with dropout on 12 images in batches of 2, and no class images."""
    model = {
        "model_type": "vit",
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.3,
    }
    return _recipe(
        folder,
        {"class_path": "dermsynth.classification.classifier.Classifier", "init_args": {"model": model}},
        {
            "class_path": "dermsynth.data.loading.modules.ClassificationData",
            "init_args": {"real": str(make_set(folder / "real")), "classes": CLASSES, "size": 16, "batch_size": 2},
        },
        [],
        {"monitor": "val/loss", "mode": "min"},
        trainer,
    )


def _recipe(folder, model, data, callbacks, best, trainer, last=()):
    best = {"filename": "best", "enable_version_counter": False, **best}
    content = {
        "trainer": {
            "accelerator": "cpu",
            "precision": "32-true",
            "devices": 1,
            "max_steps": 8,
            "val_check_interval": 3,
            "check_val_every_n_epoch": None,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                *callbacks,
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": best},
                {"class_path": "dermsynth.run.folder.LastCheckpoint", "init_args": {"every_n_train_steps": 2}},
                *last,
            ],
            **trainer,
        },
        "model": model,
        "data": data,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(recipe, run, *more):
    """The command, in this process; its exit status."""
    return main(["fit", "--config", str(recipe), "--run", str(run), *more])


def checkpoint(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same(one, other):
    """Two runs ended alike: weights, averages, optimizer and best checkpoint, bit for bit."""
    names = [path.stem for path in sorted((one / "checkpoints").iterdir())]
    assert names == [path.stem for path in sorted((other / "checkpoints").iterdir())]
    assert "last" in names
    for name in names:
        a, b = checkpoint(one, name), checkpoint(other, name)
        assert a["global_step"] == b["global_step"]
        keys = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
        for key in keys:
            assert_equal(a.get(key), b.get(key), f"{name}.ckpt: {key}")


def assert_equal(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where} {key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where} {number}")
    else:
        assert a == b, where
