"""What every training has without listing it, and how it is replaced or left out."""

from pathlib import Path

import pytest
import yaml

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.run.configuration import read_configuration
from dermsynth.run.folder import differences

ALL = ["ModelCheckpoint", "Preemption", "LearningRateMonitor"]
# Nothing is built, so that neither model nor data has to be there.
WORDS = ["--run", "r", "--trainer.max_steps", "10", "--data", "ClassificationData", "--data.real", "nowhere"]
WORDS += [
    "--data.classes",
    "[NV, MEL]",
    "--data.size",
    "8",
    "--data.batch_size",
    "2",
    "--model",
    "Classifier",
    "--model.model",
    "m",
]
BEST = "lightning.pytorch.callbacks.ModelCheckpoint"
MONITOR = "lightning.pytorch.callbacks.LearningRateMonitor"


def callbacks(*words, model=None):
    given = [model if word == "Classifier" and model else word for word in WORDS]
    return read_configuration("fit", [*given, *words])["trainer"]["callbacks"]


def names(*words, **more):
    return [callback["class_path"].rpartition(".")[2] for callback in callbacks(*words, **more) or []]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ALL),
        (["--trainer.callbacks", "[{class_path: ShownImages}]"], [*ALL, "ShownImages"]),
        (["--trainer.callbacks+=callbacks.shown_images.ShownImages"], [*ALL, "ShownImages"]),
        (["--without", "[LearningRateMonitor]"], ALL[:2]),
        (["--without", "[ModelCheckpoint, Preemption, LearningRateMonitor]"], []),
        (["--trainer.logger", "false"], ALL[:2]),
        (["--trainer.enable_checkpointing", "false"], ALL[2:]),
        (["--trainer.fast_dev_run", "true"], []),
    ],
)
def test_what_a_training_has(words, expected):
    assert names(*words) == expected


def test_the_best_checkpoint_is_by_the_models_own_metric():
    for model, monitor, mode in (("Classifier", "val/auroc", "max"), ("Autoencoder", "val/psnr", "max")):
        drop = ["--model.base", "b"] if model != "Classifier" else []
        words = [word for word in WORDS if word not in ("--model.model", "m")] if drop else WORDS
        given = [model if word == "Classifier" else word for word in words]
        best = read_configuration("fit", [*given, *drop])["trainer"]["callbacks"][0]
        assert best["class_path"] == BEST
        arguments = best["init_args"]
        assert (arguments["monitor"], arguments["mode"], arguments["filename"]) == (monitor, mode, "best")


def test_a_configurations_own_takes_the_place_of_a_default():
    own = f"[{{class_path: {BEST}, init_args: {{filename: mine, monitor: val/loss}}}}, {{class_path: Preemption}}]"
    found = callbacks("--trainer.callbacks", own)
    assert [callback["class_path"].rpartition(".")[2] for callback in found] == [ALL[2], ALL[0], ALL[1]]
    assert found[1]["init_args"]["monitor"] == "val/loss"


def test_a_flag_for_a_callback_means_the_last_that_is_listed():
    (*_, last) = callbacks("--trainer.callbacks", "[{class_path: EMA}]", "--trainer.callbacks.decay", "0.5")
    assert last["init_args"]["decay"] == 0.5


def test_what_is_written_repeats_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--without", "[LearningRateMonitor]"], ["--trainer.callbacks", "[{class_path: EMA}]"]):
        whole = read_configuration("fit", [*WORDS, *more])
        Path("fit.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        assert read_configuration("fit", ["--config", "fit.yaml"]) == whole


def test_a_run_of_an_earlier_version_is_the_same_run():
    now = read_configuration("fit", [*WORDS, "--trainer.callbacks", "[{class_path: ShownImages}, {class_path: EMA}]"])
    before = yaml.safe_load(yaml.safe_dump(now))
    best, preemption, _, drawn, ema = before["trainer"]["callbacks"]
    del before["without"]
    for listed in ([drawn, best, ema, preemption], [drawn, ema], [ema, best, drawn]):
        before["trainer"]["callbacks"] = listed
        assert differences(before, now) == []
    before["trainer"]["callbacks"] = [drawn, best]
    assert differences(before, now)[0].startswith("trainer.callbacks.EMA.class_path: nothing there, EMA here")
    best["init_args"]["monitor"] = "val/loss"
    before["trainer"]["callbacks"] = [drawn, ema, best]
    assert differences(before, now) == [
        "trainer.callbacks.ModelCheckpoint.init_args.monitor: val/loss there, val/auroc here"
    ]


def test_a_schedules_length_that_is_the_trainings_makes_no_other_run():
    def config(total, steps=10):
        schedule = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 1, "total_steps": total}}
        return {"trainer": {"max_steps": steps}, "model": {"init_args": {"lr_scheduler": schedule}}}

    assert differences(config(10), config(None)) == []
    assert len(differences(config(12), config(None))) == 1
    assert differences(config(10), config(None, steps=12)) == ["trainer.max_steps: 10 there, 12 here"]


def test_an_unknown_default_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *WORDS, "--without", "[Preemptoin]"]) == 2
    assert "--without" in capsys.readouterr().err


def test_a_warm_up_that_is_longer_than_the_training_is_refused_and_not_in_a_trial():
    schedule = ["--model.lr_scheduler", "WarmupCosine", "--model.lr_scheduler.warmup_steps", "10"]
    with pytest.raises(InputError, match=r"lr_scheduler\.warmup_steps: 10 must be below trainer\.max_steps, 10"):
        names(*schedule)
    assert names(*schedule, "--trainer.enable_checkpointing", "false") == ALL[2:]
    with pytest.raises(InputError, match=r"total_steps, 5\. Leave it out \(null\), and the schedule is as long as"):
        names(*schedule, "--model.lr_scheduler.warmup_steps", "2", "--model.lr_scheduler.total_steps", "5")


def test_how_often_the_learning_rate_is_logged_makes_no_other_run():
    now = read_configuration("fit", WORDS)
    before = read_configuration("fit", [*WORDS, "--trainer.callbacks", f"[{{class_path: {MONITOR}}}]"])
    assert differences(before, now) == differences(now, before) == []
