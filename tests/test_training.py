"""fit, validate, test and predict through the real command line, on a model of three weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dermsynth.cli import main
from dermsynth.run_folder import FINISHED, differences
from tests.builders import make_set

TESTS = Path(__file__).parent
RECIPE = """\
trainer:
  accelerator: cpu
  max_epochs: 2
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: best, monitor: val/loss, enable_version_counter: false}
model:
  class_path: toy.Line
data:
  class_path: toy.Data
  init_args:
    mix:
      class_path: toy.Policy
      init_args:
        ratio: 0.5
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with `line.yaml`, from which `toy` can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setattr(sys, "argv", ["dermsynth"])
    Path("line.yaml").write_text(RECIPE)
    return tmp_path


def fit(*more, run="r"):
    return main(["fit", "--config", "line.yaml", "--run", run, *more])


def checkpoint(path):
    return torch.load(path, weights_only=True)


def test_a_run_is_one_folder(here):
    assert fit() == 0
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8
    assert Path("r/checkpoints/best.ckpt").is_file()
    assert len(list(Path("r").glob("events.out.tfevents*"))) == 1
    assert (Path("r") / FINISHED).read_text() == "8 steps, 2 epochs\n"
    assert sorted(p.name for p in here.iterdir()) == ["line.yaml", "r"]
    saved = yaml.safe_load(Path("r/fit.yaml").read_text())
    assert saved["model"] == {
        "class_path": "toy.Line",
        "init_args": {"lr": 0.01, "width": 1, "worse": False},
    }
    assert saved["trainer"]["use_distributed_sampler"] is False
    assert saved["seed_everything"] == 0


def test_a_finished_run_is_complete(here, capsys):
    fit()
    before = {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "r/fit.yaml"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("r is complete (8 steps, 2 epochs)")
    assert before == {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(here, capsys):
    fit(run="whole")
    Path("toy_stops.py").write_text(
        "import toy\n\nclass Line(toy.Line):\n"
        "    def training_step(self, batch, index):\n"
        "        import pathlib\n"
        "        if self.global_step == 6 and not pathlib.Path('go').exists():\n"
        "            raise KeyboardInterrupt\n"
        "        return super().training_step(batch, index)\n"
    )
    sys.path.insert(0, str(here))
    assert fit("--model", "toy_stops.Line") == 130
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 4
    assert not (Path("r") / FINISHED).exists()
    Path("go").touch()
    capsys.readouterr()
    assert fit("--model", "toy_stops.Line") == 0
    assert "r: going on from r/checkpoints/last.ckpt, step 4\n" in capsys.readouterr().out
    whole, resumed = (checkpoint(f"{run}/checkpoints/last.ckpt") for run in ("whole", "r"))
    assert resumed["global_step"] == whole["global_step"] == 8
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name])
    assert (Path("r") / FINISHED).exists()


def test_last_is_the_last_even_when_the_metric_gets_worse(here):
    fit("--model.worse", "true")
    assert checkpoint("r/checkpoints/best.ckpt")["global_step"] == 4
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8


def test_another_configuration_is_refused_by_its_keys(here, capsys):
    fit()
    saved = Path("r/fit.yaml").read_text()
    assert fit("--model.lr", "0.5", "--data.mix.ratio", "0.25") == 2
    error = capsys.readouterr().err
    assert "model.init_args.lr: 0.01 there, 0.5 here" in error
    assert "data.init_args.mix.init_args.ratio: 0.5 there, 0.25 here" in error
    assert "--run" in error
    assert error.count(" there, ") == 2
    assert Path("r/fit.yaml").read_text() == saved
    # The check stays when a checkpoint is named.
    assert fit("--model.lr", "0.5", "--ckpt_path", "r/checkpoints/last.ckpt") == 2


def test_a_run_without_a_checkpoint_starts_over(here):
    fit()
    for path in (Path("r") / FINISHED, *Path("r/checkpoints").iterdir()):
        path.unlink()
    assert fit() == 0
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8


def test_a_named_checkpoint_wins_and_is_not_remembered(here, capsys):
    fit()
    assert fit("--ckpt_path", "r/checkpoints/best.ckpt", "--trainer.max_epochs", "3", run="more") == 0
    assert "more: going on from r/checkpoints/best.ckpt, step" in capsys.readouterr().out
    assert checkpoint("more/checkpoints/last.ckpt")["global_step"] == 12
    assert yaml.safe_load(Path("more/fit.yaml").read_text())["ckpt_path"] is None


def test_a_run_begun_from_anothers_checkpoint_goes_on_with_its_own(here, capsys):
    fit()
    longer = ["--ckpt_path", "r/checkpoints/best.ckpt", "--trainer.max_epochs", "3"]
    fit(*longer, run="more")
    (Path("more") / FINISHED).unlink()
    capsys.readouterr()
    assert fit(*longer, run="more") == 0
    assert "more: going on from more/checkpoints/last.ckpt, step 12\n" in capsys.readouterr().out
    assert not list(Path("more/checkpoints").glob("*.part"))


def test_another_runs_checkpoint_is_not_tested_in_this_ones_folder(here, capsys):
    fit()
    fit(run="other")
    assert main(["test", "--config", "r/fit.yaml", "--ckpt_path", "other/checkpoints/best.ckpt"]) == 2
    assert "other/checkpoints/best.ckpt: not of the run r" in capsys.readouterr().err
    assert not Path("r/test.yaml").exists()


def test_other_stages_leave_fit_yaml_alone(here):
    fit()
    saved = Path("r/fit.yaml").read_text()
    for stage in ("validate", "test", "predict"):
        checkpoints = ["--ckpt_path", "r/checkpoints/best.ckpt"]
        assert main([stage, "--config", "r/fit.yaml", *checkpoints, "--data.batch_size", "4"]) == 0
        assert yaml.safe_load(Path(f"r/{stage}.yaml").read_text())["data"]["init_args"]["batch_size"] == 4
    assert Path("r/fit.yaml").read_text() == saved
    assert main(["predict", "--config", "line.yaml", "--run", "p"]) == 0  # untrained, as the untouched base is


def test_a_trial_leaves_a_real_run_alone(here):
    fit()
    before = {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}
    trial = [
        "--trainer.enable_checkpointing",
        "false",
        "--trainer.callbacks",
        "[]",
        "--trainer.logger",
        "false",
    ]
    assert fit(*trial) == 0
    assert fit("--trainer.fast_dev_run", "true") == 0
    assert before == {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}


def test_the_datas_classes_reach_a_model_that_takes_them(here):
    fit("--model", "toy.Labelled", "--data.classes", "[NV, MEL]")
    module = yaml.safe_load(Path("r/fit.yaml").read_text())
    assert module["data"]["init_args"]["classes"] == ["NV", "MEL"]
    arguments = ["--ckpt_path", "r/checkpoints/best.ckpt"]
    assert main(["test", "--config", "r/fit.yaml", *arguments]) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "max_epochs",
            "max_epoch",
            "line.yaml, line 3: trainer has no key 'max_epoch'. Did you mean 'max_epochs'?",
        ),
        (
            "ratio:",
            "ratoi:",
            "line.yaml, line 17: toy.Policy has no parameter 'ratoi'. Did you mean 'ratio'?",
        ),
        ("monitor", "monitr", "ModelCheckpoint has no parameter 'monitr'. Did you mean 'monitor'?"),
        ("toy.Data", "toy.Dat", "line.yaml, line 12: no class 'toy.Dat'"),
        ("data:", "dta:", "line.yaml, line 11: the command has no key 'dta'. Did you mean 'data'?"),
        ("init_args:\n    mix", "initargs:\n    mix", "Did you mean 'init_args'?"),
        ("max_epochs: 2", "max_epochs: two", "line.yaml, line 3: "),
        ("ratio: 0.5", "ratio: [", "line.yaml: not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_file_line_and_the_right_name(here, capsys, old, new, said):
    assert RECIPE.count(old) == 1
    Path("line.yaml").write_text(RECIPE.replace(old, new))
    assert fit() == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not Path("r").exists()


def test_an_overlay_before_its_recipe_is_told_from_a_wrong_key(here, capsys):
    Path("faster.yaml").write_text("model: {init_args: {lr: 0.5}}\n")
    assert main(["fit", "--config", "faster.yaml", "--config", "line.yaml", "--run", "r"]) == 2
    assert "faster.yaml, line 1: 'lr' is given before the class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch: trainer has no key 'max_epoch'"),
        (["--data.mix.ratoi", "0.1"], "--data.mix.ratoi: toy.Policy has no parameter 'ratoi'"),
        (["--data.mix.ratio", "1.5"], "mix.ratio: 1.5 is outside [0, 1]"),
        (["--data.rows", "0"], "data.rows: 0 must be positive"),
        (["--trainer.default_root_dir", "x"], "is given as --run"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--ckpt_path", "line.yaml"], "line.yaml: not a "),
        (["--ckpt_path", "plain.ckpt"], "plain.ckpt: not a checkpoint of a training run"),
    ],
)
def test_a_mistake_in_a_flag_is_named(here, capsys, flags, said):
    torch.save({"weight": torch.ones(1)}, "plain.ckpt")
    assert fit(*flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not Path("r/fit.yaml").exists()


def test_what_must_be_given_is_said(here, capsys):
    assert main(["fit", "--config", "line.yaml"]) == 2
    assert "fit: --run must be given" in capsys.readouterr().err
    assert main(["test", "--config", "line.yaml", "--run", "r"]) == 2
    assert "r/checkpoints/best.ckpt" in capsys.readouterr().err


def test_checkpoints_of_other_models_are_refused_by_file(here, capsys):
    fit()
    good = checkpoint("r/checkpoints/best.ckpt")
    torch.save({**good, "dermsynth": {"kind": "classifier"}}, "other.ckpt")
    torch.save({**good, "code": Path}, "code.ckpt")
    Path("cut.ckpt").write_bytes(Path("r/checkpoints/best.ckpt").read_bytes()[:700])
    capsys.readouterr()
    for flags, said in (
        (
            ["--ckpt_path", "other.ckpt"],
            "other.ckpt: the checkpoint is one of a classifier; expected one of a line",
        ),
        (["--ckpt_path", "code.ckpt"], "code.ckpt: not a checkpoint, or it holds more than tensors"),
        (["--ckpt_path", "cut.ckpt"], "cut.ckpt: not a whole checkpoint"),
        (["--ckpt_path", "r/checkpoints/best.ckpt", "--model.width", "2"], "best.ckpt: Error(s) in loading"),
    ):
        assert main(["test", "--config", "line.yaml", "--run", "t", *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def test_differences_name_leaves_and_absent_ones():
    there = {"run": "a", "ckpt_path": None, "x": {"y": 1, "z": [1, 2]}, "list": [{"a": 1}, {"b": 2}]}
    here = {"run": "b", "ckpt_path": "c", "x": {"y": 1, "z": [1, 3]}, "list": [{"a": 1}], "new": 4}
    assert differences(there, here) == [
        "x.z: [1, 2] there, [1, 3] here",
        "list.1.b: 2 there, nothing here",
        "new: nothing there, 4 here",
    ]
    assert differences(there, {**there, "run": "elsewhere"}) == []


def test_a_latent_cache_may_lie_elsewhere_but_not_come_or_go():
    def run(**data):
        return {"data": {"init_args": {"pixel_cache": None, "latent_cache": None, **data}}}

    assert differences(run(latent_cache="a"), run(latent_cache="b")) == []
    assert differences(run(), run(pixel_cache="a")) == []
    assert differences(run(), run(latent_cache="a")) == [
        "data.init_args.latent_cache: None there, a folder here",
    ]
    assert differences(run(latent_cache="a"), run()) == [
        "data.init_args.latent_cache: a folder there, None here",
    ]


@pytest.mark.parametrize("kind", ["BrokenImageError", "InputError"])
def test_a_loader_process_names_the_broken_image_without_a_traceback(here, capsys, kind):
    assert fit("--data", "toy.Broken", "--data.kind", kind, "--trainer.num_sanity_val_steps", "0") == 2
    said = capsys.readouterr().err
    assert "a/b.png: truncated." in said
    assert "Traceback" not in said
    assert "Caught" not in said


@pytest.mark.slow
def test_two_processes_train_as_one_run(here):
    """The processes that Lightning starts read the same command line; one of them writes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "dermsynth", "fit", "--config", "line.yaml", "--run", "r"]
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    subprocess.run([*command, *more], env=environment, check=True, timeout=300)
    assert checkpoint("r/checkpoints/last.ckpt")["global_step"] == 8
    again = subprocess.run([*command, *more], env=environment, check=True, capture_output=True, text=True, timeout=300)
    assert again.stdout.count("r is complete") == 1


@pytest.mark.slow
def test_of_two_processes_none_waits_for_one_that_failed(here):
    """One process of a machine makes the pixel cache; of its broken image both hear, and both end."""
    first = make_set(here / "real") / "images" / "r_NV_000.png"
    first.write_bytes(first.read_bytes()[:-5])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    settings = {"real": "real", "classes": "[NV,MEL,SK]", "size": "16", "batch_size": "2", "pixel_cache": "cache"}
    command = [sys.executable, "-m", "dermsynth", "fit", "--config", "line.yaml", "--run", "r"]
    command += ["--model", "toy.Labelled", "--data", "dermsynth.data.modules.ClassificationData"]
    command += [word for name, value in settings.items() for word in (f"--data.{name}", value)]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.num_sanity_val_steps", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("r_NV_000.png: truncated") == 2
    assert "Traceback" not in done.stderr


def test_a_renamed_run_does_not_write_to_its_old_name(here, capsys):
    fit()
    Path("r").rename("renamed")
    assert main(["test", "--config", "renamed/fit.yaml", "--ckpt_path", "renamed/checkpoints/best.ckpt"]) == 2
    assert "it is of the run r, which lay there. Add --run renamed" in capsys.readouterr().err
    assert not Path("r").exists()
    arguments = ["--ckpt_path", "renamed/checkpoints/best.ckpt", "--run", "renamed"]
    assert main(["test", "--config", "renamed/fit.yaml", *arguments]) == 0


def test_a_training_that_would_never_validate_is_refused(here, capsys):
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3"]
    more = ["--trainer.val_check_interval", "5", "--trainer.check_val_every_n_epoch", "null"]
    assert fit(*steps, *more) == 2
    assert "trainer.val_check_interval: 5 is more than trainer.max_steps, 3" in capsys.readouterr().err


def test_accumulation_on_a_static_graph_is_refused(here, capsys):
    overlay = TESTS.parent / "configs" / "overlays" / "ddp.yaml"
    flags = ["--config", str(overlay), "--trainer.accelerator", "cpu", "--trainer.accumulate_grad_batches", "2"]
    assert fit(*flags) == 2
    assert "--trainer.strategy.static_graph false" in capsys.readouterr().err
