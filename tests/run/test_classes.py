"""Classes of this package are known by their names."""

import importlib
import pkgutil
import re

import pytest
import yaml
from lightning import Callback, LightningDataModule, LightningModule

import callbacks
import dermsynth.data
from dermsynth.cli import main
from dermsynth.data.mixing.policy import Policy
from dermsynth.run.classes import CLASSES, DATA, located, named, names_alone
from tests.builders import make_set

NETWORK = "{model_type: vit, image_size: 16, patch_size: 8, hidden_size: 8, num_hidden_layers: 1, "
NETWORK += "num_attention_heads: 1, intermediate_size: 8}"


def public(package, kind):
    """Names of the classes of a kind that the modules of a package define."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, value in vars(importlib.import_module(found.name)).items():
            if isinstance(value, type) and issubclass(value, kind) and value.__module__ == found.name:
                yield name


@pytest.mark.parametrize("name", CLASSES)
def test_each_lies_where_the_table_says(name):
    module, _, found = located(name).rpartition(".")
    assert found == name
    assert getattr(importlib.import_module(module), name).__module__ == module


def test_none_is_missing():
    bases = {"OpenAveraging"}  # of which EMA is made
    assert {*public(callbacks, Callback)} - bases <= {*CLASSES}
    assert {*public(dermsynth.data, LightningDataModule)} - {"LesionData"} <= {*DATA}
    assert {*public(dermsynth.data, Policy)} - {"Policy"} <= {*CLASSES}


def test_names_and_paths():
    assert named("dermsynth.where.it.once.was.Ratio") == named("Ratio") == "Ratio"
    assert located("dermsynth.where.it.once.was.Ratio") == located("Ratio")
    assert named("Drawn") == named("callbacks.drawn.Drawn") == "ShownImages", "its name in a former version"
    for other in ("torch.optim.AdamW", "mine.Ratio", "dermsynth.run.classes.Unknown", "Unknown"):
        assert named(other) == located(other) == other
    assert names_alone("a:\n  - class_path: callbacks.ema.EMA\n  - class_path: mine.EMA\n") == (
        "a:\n  - class_path: EMA\n  - class_path: mine.EMA\n"
    )


def test_a_run_of_dotted_paths_that_were_is_the_run_of_names(tmp_path, capsys):
    recipe = {
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 1,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "PredictionsWriter"}],
        },
        "model": {"class_path": "Classifier", "init_args": {"model": yaml.safe_load(NETWORK)}},
        "data": {
            "class_path": "ClassificationData",
            "init_args": {
                "real": str(make_set(tmp_path / "set")),
                "classes": ["NV", "MEL", "SK"],
                "size": 16,
                "batch_size": 4,
                "mix": {"class_path": "RealOnly"},
            },
        },
    }
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe))
    assert main(["fit", "--config", str(file), "--run", str(run)]) == 0
    kept = (run / "fit.yaml").read_text()
    assert not re.search(r"class_path: (dermsynth|callbacks)\.", kept)
    former = re.sub(r"class_path: (PredictionsWriter|Classifier|ClassificationData|RealOnly)\n", _as_it_was, kept)
    assert former.count("dermsynth.once.") == 4
    (run / "fit.yaml").write_text(former)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", str(file), "--run", str(run)])
    assert "is complete" in capsys.readouterr().out
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert main(["test", "--config", str(run / "fit.yaml"), *checkpoint]) == 0
    assert (run / "predictions.csv").is_file()


def _as_it_was(line):
    return f"class_path: dermsynth.once.{line[1]}\n"


def test_a_model_is_named_in_a_flag(tmp_path, capsys):
    assert main(["fit", "--model", "Classifer", "--run", str(tmp_path / "run")]) == 2
    assert "Classifer" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["a\0b", "[", "{a: b: c}"])
def test_what_is_no_yaml_is_a_mistake(value, tmp_path, capsys):
    assert main(["init", str(tmp_path), "--out", value]) == 2
    assert main(["fit", f"--data.real={value}", "--run", str(tmp_path / "run")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_models_are_modules():
    for name in ("Classifier", "DreamBooth", "Autoencoder"):
        module, _, _ = located(name).rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), LightningModule)
