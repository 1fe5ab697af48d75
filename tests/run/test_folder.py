"""A run's folder through the real command line: it is resumed, is complete, or is refused."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from dermsynth.cli import main
from dermsynth.run.folder import FINISHED, differences
from dermsynth.run.lock import TEST_LOCK
from tests.line import checkpoint, fit


def test_a_finished_run_is_complete(here, capsys):
    fit()
    before = {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "r/fit.yaml"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("r is complete (8 steps, 2 epochs)")
    assert before == {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}


def test_a_run_without_a_step_is_not_finished(here, capsys):
    assert fit("--trainer.max_time", "00:00:00:00") == 2
    assert "no step was taken, so nothing is trained" in capsys.readouterr().err
    assert not Path("r", FINISHED).exists()


@pytest.mark.parametrize(
    "broken",
    [
        {"optimizer_states": [{}]},
        {"optimizer_states": [5]},
        {"loops": {"fit_loop": {}}},
        {"loops": {"fit_loop": 5}},
        {"callbacks": [1]},
    ],
)
def test_a_checkpoint_that_cannot_be_restored_is_named_in_one_line(here, capsys, broken):
    fit()
    Path("r", FINISHED).unlink()
    torch.save({**checkpoint("r/checkpoints/last.ckpt"), **broken}, "r/checkpoints/last.ckpt")
    before = Path("r/checkpoints/last.ckpt").read_bytes()
    capsys.readouterr()
    assert fit() == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("dermsynth: error: r/checkpoints/last.ckpt: it"), error
    assert not Path("r", FINISHED).exists()
    assert Path("r/checkpoints/last.ckpt").read_bytes() == before


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
    assert "r: resumed from r/checkpoints/last.ckpt, step 4\n" in capsys.readouterr().out
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
    assert "more: resumed from r/checkpoints/best.ckpt, step" in capsys.readouterr().out
    assert checkpoint("more/checkpoints/last.ckpt")["global_step"] == 12
    assert yaml.safe_load(Path("more/fit.yaml").read_text())["ckpt_path"] is None


def test_a_run_begun_from_anothers_checkpoint_goes_on_with_its_own(here, capsys):
    fit()
    longer = ["--ckpt_path", "r/checkpoints/best.ckpt", "--trainer.max_epochs", "3"]
    fit(*longer, run="more")
    (Path("more") / FINISHED).unlink()
    capsys.readouterr()
    assert fit(*longer, run="more") == 0
    assert "more: resumed from more/checkpoints/last.ckpt, step 12\n" in capsys.readouterr().out
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


@pytest.mark.parametrize("name", ["metadata.csv", "dataset.json"])
def test_no_run_is_in_an_image_set(here, capsys, name):
    Path("r").mkdir()
    Path("r", name).touch()
    fit(run="other")
    checkpoint = str(Path("other", "checkpoints", "last.ckpt"))
    for stage in ("fit", "validate", "test"):
        assert main([stage, "--config", "line.yaml", "--run", "r", "--ckpt_path", checkpoint]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith("--run r: it holds an image set; give another folder.")
    assert [path.name for path in Path("r").iterdir()] == [name]


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


def test_a_renamed_run_does_not_write_to_its_old_name(here, capsys):
    fit()
    Path("r").rename("renamed")
    assert main(["test", "--config", "renamed/fit.yaml", "--ckpt_path", "renamed/checkpoints/best.ckpt"]) == 2
    assert "it is of the run r, which lay there. Add --run renamed" in capsys.readouterr().err
    assert not Path("r").exists()
    arguments = ["--ckpt_path", "renamed/checkpoints/best.ckpt", "--run", "renamed"]
    assert main(["test", "--config", "renamed/fit.yaml", *arguments]) == 0


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
def test_a_logger_of_the_recipe_leaves_the_best_checkpoint_in_the_run(here, logger):
    assert fit("--trainer.logger", logger, "--trainer.logger.save_dir", "r") == 0
    assert {path.name for path in Path("r/checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len(list(Path("r").rglob("*.ckpt"))) == 2


def test_a_run_that_was_renamed_keeps_its_best(here):
    """Each validation is worse than the one before, so that the best is of the first epoch, before the renaming."""
    worse = ["--model.worse", "true"]
    fit(*worse)
    best = checkpoint("r/checkpoints/best.ckpt")["global_step"]
    Path("r").rename("renamed")
    longer = ["--trainer.max_epochs", "3"]
    last = Path("renamed/checkpoints/last.ckpt")
    Path("renamed/fit.yaml").write_text(Path("renamed/fit.yaml").read_text().replace("max_epochs: 2", "max_epochs: 3"))
    (Path("renamed") / FINISHED).unlink()
    assert fit(*worse, *longer, run="renamed") == 0
    assert checkpoint(last)["global_step"] == 12
    assert checkpoint("renamed/checkpoints/best.ckpt")["global_step"] == best == 4


def test_a_logger_whose_package_is_missing_is_one_line(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert fit("--trainer.logger", "WandbLogger") == 2
    said = capsys.readouterr().err
    assert "wandb" in said
    assert said.count("\n") == 1


def test_a_stage_that_fails_before_its_first_step_leaves_nothing(here, capsys):
    mistyped = ["--data", "dermsynth.data.loading.modules.ClassificationData", "--data.real", "no/set"]
    mistyped += ["--data.classes", "[NV, MEL]", "--data.size", "16", "--data.batch_size", "2"]
    assert fit("--model", "toy.Labelled", *mistyped, run="runs/new") == 2
    assert "no/set" in capsys.readouterr().err
    assert sorted(p.name for p in here.iterdir()) == ["line.yaml"]
    fit()
    before = sorted(Path("r").rglob("*"))
    best = ["--ckpt_path", "r/checkpoints/best.ckpt"]
    assert main(["test", "--config", "r/fit.yaml", *best, "--model", "toy.Labelled", *mistyped]) == 2
    assert sorted(Path("r").rglob("*")) == sorted([*before, Path("r", TEST_LOCK)])  # a lock's file stays
