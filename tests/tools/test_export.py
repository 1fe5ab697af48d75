"""The whole way from a run to files that other libraries read, through the real command line."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from dermsynth.classification.classifier import Classifier
from dermsynth.diffusion.base_license import license_of_base
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.errors import InputError
from dermsynth.model_card import write_card
from dermsynth.run.training_cli import run
from dermsynth.tools.export import export
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
        {"class_path": "dermsynth.data.loading.modules.DreamBoothData", "init_args": images},
    )


def test_a_dreambooth_run_becomes_a_diffusers_pipeline(tmp_path, base, images):
    checkpoint = dreambooth(tmp_path, base, images)
    export(checkpoint, tmp_path / "out")
    unet = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None).unet.state_dict()
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"unet.{name}"]) for name, value in unet.items())
    module = DreamBooth.load_from_checkpoint(checkpoint)
    assert all(torch.equal(value, saved[f"unet.{name}"]) for name, value in module.unet.state_dict().items())
    with pytest.raises(InputError, match="it exists already"):
        export(checkpoint, tmp_path / "out")
    with pytest.raises(InputError, match="no LoRA adapters"):
        export(checkpoint, tmp_path / "lora", "lora")
    with pytest.raises(InputError, match="a dreambooth exports as diffusers or lora or kohya"):
        export(checkpoint, tmp_path / "vit", "transformers")


def test_its_card_passes_the_bases_licence_on(tmp_path, base):
    shutil.copytree(base, tmp_path / "stable-diffusion-v1-5")
    config = {"model": {"init_args": {"base": str(tmp_path / "stable-diffusion-v1-5")}}}
    (tmp_path / "out").mkdir()
    write_card(tmp_path / "out", tmp_path / "run/checkpoints/last.ckpt", "diffusers", config, {"classes": ["NV"]})
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "creativeml-openrail-m"
    assert "to give medical advice" in card
    assert license_of_base(str(tmp_path / "out")) == "creativeml-openrail-m", "and so does what is made of the export"


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
    # In Python too, with the nested values of the configuration.
    module = DreamBooth.load_from_checkpoint(checkpoint, map_location="cpu")
    assert (module.lora.rank, module.lora.use_dora) == (2, True)
    export(checkpoint, tmp_path / "kohya", "kohya")
    assert sorted(file.name for file in (tmp_path / "kohya").iterdir()) == ["README.md", "run.safetensors"]
    with safe_open(tmp_path / "kohya/run.safetensors", "pt") as file:
        said = file.metadata()
    assert (said["ss_network_dim"], said["ss_network_alpha"], said["ss_v2"]) == ("2", "2.0", "False")
    assert said["modelspec.trigger_phrase"] == "sks"
    assert json.loads(said["ss_tag_frequency"]) == {"sks": {"sks": 1}}
    keys = load_file(tmp_path / "kohya/run.safetensors").keys()
    assert {key.partition("_mid_block")[0].partition("_text_model")[0] for key in keys} >= {"lora_unet", "lora_te"}
    (tmp_path / "all").mkdir()
    assert checkpoint.stat().st_size < dreambooth(tmp_path / "all", base, images).stat().st_size / 2


VIT = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
VIT |= {"num_attention_heads": 2, "intermediate_size": 8}


def test_a_classifier_run_becomes_a_transformers_folder(tmp_path, images, capsys):
    checkpoint = fit(
        tmp_path,
        {"class_path": "dermsynth.classification.classifier.Classifier", "init_args": {"model": VIT}},
        {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": images},
    )
    export(checkpoint, tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert list(model.config.id2label.values()) == CLASSES
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"model.{name}"]) for name, value in model.state_dict().items())
    assert f'AutoModelForImageClassification.from_pretrained("{tmp_path / "out"}")' in capsys.readouterr().out
    card = (tmp_path / "out/README.md").read_text()
    assert "Licence of the training images: CC0-1.0" in card
    assert len({file.stat().st_mode for file in (tmp_path / "out").iterdir()}) == 1

    # The checkpoint alone is enough, for `export` and in Python.
    alone = shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    module = Classifier.load_from_checkpoint(alone)
    assert module.classes == CLASSES
    assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items())
    export(Path(alone), tmp_path / "again")
    same = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in load_file(tmp_path / "out/model.safetensors").items())
    with pytest.raises(InputError, match=r"alone\.ckpt: its configuration is not one of a DreamBooth"):
        DreamBooth.load_from_checkpoint(alone, base="tiny")

    # A run is a folder.
    with pytest.raises(InputError, match=r"run is a folder\. Give a checkpoint, such as .*run/checkpoints/last\.ckpt"):
        export(tmp_path / "run", tmp_path / "more")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A checkpoint as a classifier's run writes it, with everything that is looked at."""
    folder = tmp_path_factory.mktemp("classifier")
    data = {"real": str(make_set(folder / "set")), "classes": CLASSES, "size": 16, "batch_size": 2}
    checkpoint = fit(
        folder,
        {"class_path": "dermsynth.classification.classifier.Classifier", "init_args": {"model": VIT}},
        {"class_path": "dermsynth.data.loading.modules.ClassificationData", "init_args": data},
    )
    return torch.load(checkpoint, weights_only=True)


def nested(**values):
    return {"dermsynth": lambda old: {**old, **values}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_dict": None}, "another network"),
        ({"state_dict": [1]}, "its state_dict is not a mapping of weights"),
        ({"state_dict": {"a": "b"}}, "its state_dict is not a mapping of weights"),
        ({"state_dict": lambda old: {k: v * torch.nan for k, v in old.items()}}, "weights are NaN or infinite"),
        ({"state_dict": lambda old: {k: v.to(torch.int8) for k, v in old.items()}}, "of int8 in the file and "),
        ({"state_dict": lambda old: {k: v[:1] for k, v in old.items()}}, "weights differ, such as"),
        ({"dermsynth": "me"}, "not a checkpoint of a model of this project"),
        ({"dermsynth": {}}, "not a checkpoint of a model of this project"),
        (nested(kind=["classifier"]), "not a checkpoint of a model of this project"),
        (nested(data="CC0"), "what it says of its data is a str"),
        (nested(data={"license": "CC0"}), "does not say on which train split it was fitted"),
        (nested(data={"train_split_sha256": 7}), "train_split_sha256 is '7'; expected a text"),
        (nested(classes=["a", "b"]), "was made with classes"),
        (nested(classes="ab"), "its classes is 'ab'; expected a list"),
        (nested(later=1), "says 'later' of itself, which this version of dermsynth does not know"),
        ({"pytorch-lightning_version": 5}, "it is of Lightning '5'"),
        ({"pytorch-lightning_version": "0.7.1"}, "it is of Lightning '0.7.1'"),
        ({"configuration": 7}, "its configuration is not that of a run"),
        ({"configuration": "a: ["}, "its configuration is not that of a run"),
        ({"configuration": "a: 1"}, "its configuration is not that of a run"),
        ({"configuration": "!!python/object/apply:os.system [true]"}, "its configuration is not that of a run"),
        ({"configuration": None}, "does not say which configuration"),
    ],
)
def test_a_checkpoint_of_nonsense_is_refused_in_one_line(classifier, tmp_path, change, message):
    content = dict(classifier)
    for key, value in change.items():
        if value is None:
            del content[key]
        else:
            content[key] = value(content[key]) if callable(value) else value
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=message) as error:
        export(tmp_path / "a.ckpt", tmp_path / "out")
    assert str(error.value).startswith(str(tmp_path / "a.ckpt"))
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_damaged_bytes_of_weights_are_found(classifier, tmp_path):
    torch.save({**classifier, "state_dict": {**classifier["state_dict"], "x": torch.ones(9999)}}, tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    place = content.index(torch.ones(999).numpy().tobytes())
    content[place : place + 64] = bytes(64)
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.ckpt: not a whole checkpoint: .* damaged"):
        export(tmp_path / "a.ckpt", tmp_path / "out")
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(InputError, match=r"pipe\.ckpt: no file"):
        export(tmp_path / "pipe.ckpt", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("5", "it holds a int; expected keys"),
        ("a: 1", "is not that of a run"),
        ("\x00", "not YAML"),
        ("model: !!python/name:os.system", "not YAML"),
        ("model: {class_path: 5}\ndata: {class_path: x}", "is not that of a run"),
    ],
)
def test_a_run_file_of_nonsense_is_refused_in_one_line(classifier, tmp_path, text, message):
    torch.save(classifier, tmp_path / "a.ckpt")
    (tmp_path / "fit.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        export(tmp_path / "a.ckpt", tmp_path / "out")
    assert str(error.value).startswith(str(tmp_path / "fit.yaml"))
    assert "\n" not in str(error.value)


def test_the_checkpoint_says_what_the_model_is_and_no_other_runs_file(classifier, tmp_path):
    torch.save(classifier, tmp_path / "a.ckpt")
    config = yaml.safe_load(classifier["configuration"])
    config["run"], config["data"]["init_args"]["real"] = "elsewhere", "moved"  # the same run, moved with its set
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    export(tmp_path / "a.ckpt", tmp_path / "out")
    config["model"]["init_args"]["label_smoothing"] = 0.25
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"label_smoothing: 0\.25 there, \S+ here\)\. Move") as error:
        export(tmp_path / "a.ckpt", tmp_path / "other")
    assert str(error.value).startswith(f"{tmp_path / 'a.ckpt'}: {tmp_path / 'fit.yaml'} is of another run (")
    assert "\n" not in str(error.value)
    # One of before checkpoints said it.
    torch.save({key: value for key, value in classifier.items() if key != "configuration"}, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "former")


EVIL = {"class_path": "evil.C"}


@pytest.mark.parametrize(
    "model",
    [
        EVIL,
        {"class_path": "dermsynth.diffusion.dreambooth.DreamBooth", "init_args": {}},
        {"init_args": {"optimizer": EVIL, "lr_scheduler": EVIL}},
        {"init_args": {"optimizer": "evil.C", "lr_scheduler": "evil.C"}},
        {"init_args": {"class_weights": EVIL}},
        {"init_args": {"class_weights": "evil.C"}},
        {"init_args": {"image_size": EVIL, "label_smoothing": "evil.C"}},
        {"init_args": {"model": EVIL}},
        {"init_args": {"unknown": EVIL}},
    ],
)
@pytest.mark.parametrize("file", ["fit.yaml", "checkpoint"])
def test_a_strangers_run_runs_no_code(classifier, tmp_path, monkeypatch, model, file):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(classifier["configuration"])
    config["data"] |= EVIL
    config["trainer"]["callbacks"] = [EVIL]
    config["model"] = {**config["model"], **model}
    config["model"]["init_args"] = {"model": VIT, **config["model"]["init_args"], **model.get("init_args", {})}
    content = dict(classifier)
    if file == "fit.yaml":
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    else:
        content["configuration"] = yaml.safe_dump(config)
    torch.save(content, tmp_path / "a.ckpt")
    # A fit.yaml is held against the checkpoint's own configuration, where optimizers count.
    not_needed = file == "checkpoint" and model.get("init_args", {}).keys() == {"optimizer", "lr_scheduler"}
    with contextlib.nullcontext() if not_needed else pytest.raises(InputError):
        export(tmp_path / "a.ckpt", tmp_path / "out")
    assert "evil" not in sys.modules


def test_a_model_of_the_users_own_is_built_on_request(classifier, tmp_path, monkeypatch):
    (tmp_path / "own_model.py").write_text(
        "from dermsynth.classification.classifier import Classifier\n\nclass Own(Classifier):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(classifier["configuration"])
    config["model"]["class_path"] = "own_model.Own"
    torch.save({**classifier, "configuration": yaml.safe_dump(config)}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"the model is a own_model\.Own, .* give --trust true only if"):
        export(tmp_path / "a.ckpt", tmp_path / "out")
    export(tmp_path / "a.ckpt", tmp_path / "out", trust=True)
    assert (tmp_path / "out/model.safetensors").is_file()


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
    with pytest.raises(InputError, match=r"text\.ckpt is a folder|is a folder\. Give a checkpoint\."):
        export(tmp_path, tmp_path / "out")
    torch.save({**lightning, "dermsynth": {"kind": "dreambooth"}}, tmp_path / "lost.ckpt")
    with pytest.raises(InputError, match=r"the run's fit\.yaml is needed"):
        export(tmp_path / "lost.ckpt", tmp_path / "out")
