"""The whole way from a run to files that other libraries read, through the real command line."""

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from dermsynth.errors import InputError
from dermsynth.tools.export import export
from dermsynth.training import run
from tests.builders import CLASSES, make_set

CHECKPOINT = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"save_last": True, "enable_version_counter": False},
}
TRAINER = {
    "accelerator": "cpu",
    "precision": "32-true",
    "max_steps": 1,
    "logger": False,
    "limit_val_batches": 0,
    "callbacks": [CHECKPOINT],
}


def fit(folder, model, data):
    config = {"trainer": {**TRAINER, "enable_progress_bar": False}, "model": model, "data": data}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run(["fit", "--config", str(folder / "config.yaml"), "--run", str(folder / "run")])
    return folder / "run/checkpoints/last.ckpt"


@pytest.fixture
def images(tmp_path):
    return {"real": str(make_set(tmp_path / "set")), "classes": CLASSES, "size": 16, "batch_size": 2}


def dreambooth(folder, base, images, **options):
    return fit(
        folder,
        {"class_path": "dermsynth.diffusion.dreambooth.DreamBooth", "init_args": {"base": base, **options}},
        {"class_path": "dermsynth.data.modules.DreamBoothData", "init_args": images},
    )


def test_a_dreambooth_run_becomes_a_diffusers_pipeline(tmp_path, base, images):
    checkpoint = dreambooth(tmp_path, base, images)
    export(checkpoint, tmp_path / "out")
    unet = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None).unet.state_dict()
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"unet.{name}"]) for name, value in unet.items())
    with pytest.raises(InputError, match="it exists already"):
        export(checkpoint, tmp_path / "out")
    with pytest.raises(InputError, match="no LoRA adapters"):
        export(checkpoint, tmp_path / "lora", "lora")
    with pytest.raises(InputError, match="a dreambooth exports as diffusers or lora or kohya"):
        export(checkpoint, tmp_path / "vit", "transformers")


def test_a_lora_run_becomes_one_small_file(tmp_path, base, images):
    # What a YAML file can say of the loss and of the adapters comes through.
    options = {
        "lora": {"rank": 2, "alpha": 2, "use_dora": True},
        "objective": {"prior_loss_weight": {"NV": 1.0, "MEL": 2.0, "SK": 1.0}, "debiased": True, "huber_delta": 0.1},
        "train_text_encoder": True,
        "text_encoder_lr": 1e-6,
    }
    checkpoint = dreambooth(tmp_path, base, images, **options)
    export(checkpoint, tmp_path / "out", "lora")
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.load_lora_weights(tmp_path / "out")
    config = pipeline.unet.peft_config["default_0"]
    assert (config.r, config.use_dora) == (2, True)
    export(checkpoint, tmp_path / "kohya", "kohya")
    assert [file.name for file in (tmp_path / "kohya").iterdir()] == ["lora.safetensors"]
    keys = load_file(tmp_path / "kohya/lora.safetensors").keys()
    assert {key.partition("_mid_block")[0].partition("_text_model")[0] for key in keys} >= {"lora_unet", "lora_te"}
    (tmp_path / "all").mkdir()
    assert checkpoint.stat().st_size < dreambooth(tmp_path / "all", base, images).stat().st_size / 2


def test_a_classifier_run_becomes_a_transformers_folder(tmp_path, images):
    vit = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
    vit |= {"num_attention_heads": 2, "intermediate_size": 8}
    checkpoint = fit(
        tmp_path,
        {"class_path": "dermsynth.classification.classifier.Classifier", "init_args": {"model": vit}},
        {"class_path": "dermsynth.data.modules.ClassificationData", "init_args": images},
    )
    export(checkpoint, tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert list(model.config.id2label.values()) == CLASSES
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"model.{name}"]) for name, value in model.state_dict().items())


def test_files_that_are_no_checkpoint_of_ours_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        export(tmp_path / "none.ckpt", tmp_path / "out")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of a training run"):
        export(tmp_path / "other.ckpt", tmp_path / "out")
    lightning = {"pytorch-lightning_version": "2.6.6"}
    torch.save(lightning, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of a model of this project"):
        export(tmp_path / "foreign.ckpt", tmp_path / "out")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        export(tmp_path / "text.ckpt", tmp_path / "out")
    torch.save({**lightning, "dermsynth": {"kind": "dreambooth"}}, tmp_path / "lost.ckpt")
    with pytest.raises(InputError, match=r"the run's fit\.yaml is needed"):
        export(tmp_path / "lost.ckpt", tmp_path / "out")
