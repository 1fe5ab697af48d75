"""What `predict`, `test` and `validate` need not be told again, through the real command line."""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.run.configuration import read_configuration
from dermsynth.run.training_cli import run
from tests.builders import CLASSES, make_set

TRAINER = {"accelerator": "cpu", "precision": "32-true", "logger": False, "enable_progress_bar": False}
FIT = {"max_steps": 1, "limit_val_batches": 0}
VIT = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
VIT |= {"num_attention_heads": 2, "intermediate_size": 8}
LAST = "run/checkpoints/last.ckpt"


def write(file, model, data, **trainer):
    content = {"trainer": {**TRAINER, **trainer}, "model": model, "data": data}
    Path(file).write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_set(folder / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["dermsynth"])
        yield folder


@pytest.fixture(scope="module")
def generator(folder, base):
    """A run of adapters for UNet and text encoder, on another objective; and what generates, without a word of it."""
    model = {"base": base, "train_text_encoder": True, "lora": {"rank": 2, "alpha": 1}}
    model |= {"objective": {"prediction_type": "v_prediction"}, "sampling": {"steps": 2}}
    data = {"real": "set", "classes": CLASSES, "size": 16, "batch_size": 2}
    parts = ({"class_path": "DreamBooth", "init_args": model}, {"class_path": "DreamBoothData", "init_args": data})
    run(["fit", "--config", write("fit.yaml", *parts, **FIT), "--run", "run"])
    data = {"classes": CLASSES, "count": 1, "batch_size": 3}
    model = {"class_path": "DreamBooth", "init_args": {"sampling": {"steps": 2, "guidance_scale": 1.0}}}
    return write(
        "generate.yaml",
        model,
        {"class_path": "GenerationData", "init_args": data},
        callbacks=[{"class_path": "ImageSetWriter"}],
    )


def test_generation_takes_what_the_weights_are_from_the_checkpoint(generator, base):
    words = ["--config", generator, "--ckpt_path", LAST]
    given = ["--model.base", base, "--model.train_text_encoder", "true", "--model.lora", "{rank: 2, alpha: 1}"]
    given += ["--model.objective.prediction_type", "v_prediction"]
    run(["predict", *words, "--run", "short"])
    run(["predict", *words, *given, "--run", "long"])
    short, long = Path("short"), Path("long")
    made = [[record.sha256 for record in manifest.read(out).records] for out in (short, long)]
    assert made[0] == made[1]
    written, said = (yaml.safe_load((out / "predict.yaml").read_text())["model"] for out in (short, long))
    assert written == said
    # What says how images are drawn is the recipe's, and its default not the training's.
    assert written["init_args"]["sampling"]["guidance_scale"] == 1.0
    assert read_configuration("predict", [*words, "--run", "short"])["model"] == written


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("lora.rank", "4", r"model\.lora\.rank: the checkpoint was trained with 2, and 4 is given\. Leave it out"),
        ("lora", "null", r"model\.lora: the checkpoint was trained with \{\"rank\": 2, .*\}, and null is given"),
        ("train_text_encoder", "false", r"model\.train_text_encoder: the checkpoint .* true, and false is given"),
        ("objective.prediction_type", "epsilon", r'prediction_type: .* "v_prediction", and "epsilon" is given'),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused_in_one_line(generator, flag, value, message):
    words = ["predict", "--config", generator, "--ckpt_path", LAST, "--run", "out", f"--model.{flag}", value]
    with pytest.raises(InputError, match=message) as error:
        run(words)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=message):
        read_configuration("predict", words[1:])


def test_a_base_may_lie_elsewhere_and_a_file_may_name_the_checkpoint(generator, folder, base):
    (folder / "elsewhere").symlink_to(base)
    Path("ckpt.yaml").write_text(f"ckpt_path: {LAST}\n")
    run(["predict", "--config", generator, "--config=ckpt.yaml", "--model.base", "elsewhere", "--run", "made"])
    assert manifest.read(folder / "made").records


def test_a_generation_is_planned_before_its_checkpoint_is_there(generator, base):
    words = ["--config", generator, "--run", "out", "--ckpt_path", "none.ckpt"]
    assert read_configuration("predict", words)["model"]["init_args"]["sampling"]["steps"] == 2
    with pytest.raises(InputError, match="'sampler'"):
        read_configuration("predict", [*words, "--model.sampler", "x"])
    with pytest.raises(InputError, match=r"none\.ckpt: no such checkpoint"):
        run(["predict", *words])
    with pytest.raises(InputError, match="DreamBooth needs base"):
        run(["predict", *words[:-2]])


def test_a_classifier_is_tested_without_its_network_said_again(folder):
    data = {"real": "set", "classes": CLASSES, "size": 16, "batch_size": 2}
    parts = {"class_path": "ClassificationData", "init_args": data}
    model = {"class_path": "Classifier", "init_args": {"model": VIT, "label_smoothing": 0.1}}
    run(["fit", "--config", write("fit.yaml", model, parts, **FIT), "--run", "vit"])
    short = write("test.yaml", {"class_path": "Classifier"}, parts, callbacks=[{"class_path": "PredictionsWriter"}])
    last = "vit/checkpoints/last.ckpt"
    words = ["test", "--config", short, "--ckpt_path", last, "--run", "vit"]
    with pytest.raises(InputError, match=r"model\.model\.hidden_size: the checkpoint .* 8, and 16 is given"):
        run([*words, "--model.model", str({**VIT, "hidden_size": 16})])
    run(words)
    written = yaml.safe_load((folder / "vit/test.yaml").read_text())["model"]["init_args"]
    assert written["model"] == VIT
    assert written["label_smoothing"] == 0.1
    run(["test", "--config", "vit/fit.yaml", "--ckpt_path", last])


def test_a_strangers_checkpoint_imports_nothing(generator, folder, monkeypatch):
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(folder)
    content = torch.load(LAST, weights_only=True)
    config = yaml.safe_load(content["configuration"])
    for name in ("objective", "lora"):
        config["model"]["init_args"][name] = {"class_path": "evil.C"}
        torch.save({**content, "configuration": yaml.safe_dump(config)}, "evil.ckpt")
        with pytest.raises(InputError, match=r"evil\.ckpt: its configuration names a class as model\."):
            run(["predict", "--config", generator, "--ckpt_path", "evil.ckpt", "--run", "out"])
    config["model"]["class_path"] = "evil.C"
    torch.save({**content, "configuration": yaml.safe_dump(config)}, "evil.ckpt")
    with pytest.raises(InputError, match="DreamBooth needs base"):
        run(["predict", "--config", generator, "--ckpt_path", "evil.ckpt", "--run", "out"])
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pipe", r"pipe: no file\. Give a checkpoint"),
        (".", r"\. is a folder\. Give a checkpoint"),
        ("generate.yaml", r"generate\.yaml: not a whole checkpoint"),
        ("~nobody-here/x.ckpt", r"ckpt_path: .*there is no such user"),
        ("x" * 300, "ckpt_path: .*no file can have such a name"),
    ],
    ids=["pipe", "folder", "text", "user", "name"],
)
def test_what_is_no_checkpoint_is_named(generator, path, message):
    if path == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match=message):
        run(["predict", "--config", generator, "--ckpt_path", path, "--run", "out"])


def test_a_checkpoint_that_says_no_configuration_changes_nothing(generator, base):
    content = torch.load(LAST, weights_only=True)
    del content["configuration"]
    torch.save(content, "bare.ckpt")
    words = ["predict", "--config", generator, "--ckpt_path", "bare.ckpt", "--run", "out"]
    with pytest.raises(InputError, match="DreamBooth needs base"):
        run(words)
    with pytest.raises(InputError, match=r"bare\.ckpt: the checkpoint was made with train_text_encoder True"):
        run([*words, "--model.base", base])
