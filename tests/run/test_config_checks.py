"""What is refused in any command line or configuration, by its key and before anything is built."""

import os
from pathlib import Path

import pytest

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.run.config_checks import check_arguments, given_path
from dermsynth.run.yaml_files import read_yaml
from tests.line import fit


def _error(capsys):
    lines = capsys.readouterr().err.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("dermsynth: error: ")]
    assert number == len(lines) - 1, "one line"
    return lines[number].removeprefix("dermsynth: error: ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--model.lr .nan", "model.lr: nan is no number that can be computed with"),
        ("--model.lr=-.inf", "model.lr: -inf is no number"),
        ("--model.lr 1e300", "model.lr: 1e+300 is no number"),
        ("--trainer.gradient_clip_val .nan", "trainer.gradient_clip_val: nan is no number"),
        ("--trainer.callbacks+=callbacks.ema.EMA --trainer.callbacks.decay .nan", "trainer.callbacks.1.decay: nan"),
        ("--trainer.callbacks+=callbacks.ema.EMA --trainer.callbacks.decay 2", "callbacks.ema.EMA.decay: 2.0 must be"),
        ("--data.mix.ratio [.nan,0.9]", "--data.mix.ratio.0: nan is no number that can be computed with"),
        ("--model.lr nan", "--model.lr: nan is not a number."),
        ("--trainer.max_steps two", "--trainer.max_steps: two is not a whole number."),
        ("--data.classes 5", "--data.classes: 5 is not a list."),
        ("--seed_everything -1", "seed_everything: -1 must be a whole number from 0 to 4294967295."),
        ("--seed_everything 4294967296", "seed_everything: 4294967296 must be"),
        ("--seed_everything true", "seed_everything: true must be"),
        ("--seed_everything false", "seed_everything: false must be"),
        (f"--trainer.log_every_n_steps {2**63}", "trainer.log_every_n_steps: 9223372036854775808 is too large a whole"),
        (f"--trainer.num_nodes -{10**20}", "trainer.num_nodes: -100000000000000000000 is too large a whole number"),
        ("--trainer.max_steps 0", "trainer.max_steps: 0 must be at least 1, or -1 for no limit."),
        ("--trainer.max_epochs -2", "trainer.max_epochs: -2 must be"),
        ("--trainer.val_check_interval 0", "trainer.val_check_interval: 0 must be above 0."),
        ("--trainer.accumulate_grad_batches -2", "trainer.accumulate_grad_batches: -2 must be at least 1."),
        ("--trainer.limit_train_batches -0.5", "trainer.limit_train_batches: -0.5 must be above 0."),
        ("--trainer.gradient_clip_val -1.5", "trainer.gradient_clip_val: -1.5 must be at least 0"),
        ("--trainer.overfit_batches 2", "Give --trainer.limit_train_batches"),
        ("--trainer.accelerator quantum", "trainer: You selected an invalid accelerator name"),
        ("--trainer.num_nodes 0", "trainer: `num_nodes` must be a positive integer"),
        ("--trainer.precision transformer-engine", "trainer: Requirement 'transformer_engine"),
        ("--ckpt_path $HOME/x.ckpt", "ckpt_path: $HOME/x.ckpt: variables are not filled in here."),
        ("--run $HOME/r", "--run: $HOME/r: variables are not filled in here."),
        ("--run line.yaml/r", "--run line.yaml/r: line.yaml is a file."),
        (f"--run {'a' * 300}", "no file can have such a name."),
        ("--run=", "--run: an empty path."),
        ("--data.classes " + "[" * 60, "--data.classes: nested more than 50 deep"),
        (
            "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint --trainer.callbacks.monitor val/loss",
            "is listed twice. Leave one out.",
        ),
        ("--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateFinder", "LearningRateFinder does not go with"),
        ("--trainer.callbacks+=lightning.pytorch.callbacks.Timer", "Timer has a default that cannot be written"),
        (
            "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor val_loss",
            "trainer.callbacks: Early stopping conditioned on metric `val_loss` which is not available.",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(here, capsys, flags, said):
    before = sorted(here.iterdir())
    assert fit(*flags.split()) == 2
    assert said in _error(capsys)
    assert "EarlyStopping" in flags or sorted(here.iterdir()) == before


def test_nodes_that_nothing_knows_of_are_not_waited_for(here, capsys, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    assert fit("--trainer.num_nodes", "2") == 2
    assert _error(capsys).startswith("trainer.num_nodes: 2, but nothing here says where the others are")
    # Told of the others, it gets as far as the next check.
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert main(["test", "--config", "line.yaml", "--run", "r", "--trainer.num_nodes", "2"]) == 2
    assert _error(capsys).startswith("test: --ckpt_path must be given")


def test_a_step_beyond_float32_is_one_line(here, capsys, monkeypatch):
    monkeypatch.syspath_prepend(here)
    Path("toy_adam.py").write_text(
        "import torch\nimport toy\n\nclass Line(toy.Line):\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.Adam(self.parameters(), self.lr, foreach=False)\n"
    )
    assert fit("--model", "toy_adam.Line", "--model.lr", "1e38") == 2
    assert "model.optimizer: a step is beyond the largest number" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.yaml: it holds nothing; expected keys with values"),
        ("[1]", "x.yaml: it holds a list; expected keys with values"),
        ("a: 1\nb: {c: 1,\n c: 2}", "x.yaml: the key 'c' is given twice, in lines 2 and 3."),
        (
            "trainer: {max_steps: 6}\ntrainer: {max_steps: 8}",
            "x.yaml: the key 'trainer' is given twice, in lines 1 and",
        ),
        ("a: &a [*a]", "x.yaml, line 1: an alias within what it stands for."),
        ("a: &a {x: *a}", "x.yaml, line 1: an alias within what it stands for."),
        (
            "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n},' * 9}]\n" for n in range(9)),
            "stand for more than",
        ),
        ("a: " + "[" * 5000, "x.yaml: nested more than 50 deep"),
        ("a: [", "x.yaml: not YAML: line 1: "),
        ("a: !!python/object/apply:os.getcwd []", "x.yaml: not YAML: line 1: could not determine a constructor"),
        ("a: \0", "x.yaml: not YAML: "),
        ("a: " + "9" * 5000, "x.yaml: not YAML: Exceeds the limit (4300 digits)"),
        ("a: 2026-02-31", "x.yaml: not YAML: day is out of range for month."),
        (b"a: \xff", "x.yaml: not UTF-8."),
        ("#" * 1_000_001, "x.yaml: more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_name(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as refused:
        read_yaml(Path("x.yaml"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {gradient_clip_val: .nan}", "x.yaml: trainer.gradient_clip_val: nan is no number"),
        ("data: {init_args: {mix: {ratio: [0.1, .inf]}}}", "x.yaml: data.mix.ratio.1: inf is no number"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_its_file_and_key(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        check_arguments(["fit", "--config", "x.yaml"], [Path("x.yaml")])
    assert str(refused.value).startswith(said)


def test_aliases_as_recipes_have_them_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &steps 5\nb: [*steps, *steps]\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 5, "b": [5, 5]}


def test_what_is_no_file_is_not_waited_for(here, capsys):
    os.mkfifo("pipe")
    assert main(["fit", "--config", "pipe", "--run", "r"]) == 2
    assert _error(capsys) == "pipe: not a file."
    assert main(["test", "--config", "line.yaml", "--run", "r", "--ckpt_path", "pipe"]) == 2
    assert _error(capsys).startswith("pipe: no file. Give a checkpoint.")
    assert main(["export", "pipe", "--out", "e"]) == 2
    assert _error(capsys).startswith("pipe: no file. Give a checkpoint.")


def test_a_file_that_a_key_names_is_not_shown(here, capsys):
    Path("secret").write_text("a secret\nof two lines\n")
    Path("x.yaml").write_text("config: secret\n")
    assert main(["fit", "--config", "x.yaml", "--run", "r"]) == 2
    assert _error(capsys) == "x.yaml: config: a file cannot name another. Give each as --config FILE."
    Path("x.yaml").write_text("model: secret\n")
    assert main(["fit", "--config", "line.yaml", "--config", "x.yaml", "--run", "r"]) == 2
    said = _error(capsys)
    assert said.startswith("x.yaml, line 1: model: ")
    assert "a secret" not in said


def test_a_run_in_the_home_folder_is_one_folder(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    Path("x.yaml").write_text("run: ~/yaml\n")
    assert fit("--trainer.max_steps", "1", run="~/runs/r") == 0
    assert main(["fit", "--config", "line.yaml", "--config", "x.yaml", "--trainer.max_steps", "1"]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["home", "line.yaml", "x.yaml"]
    for run in (here / "home" / "runs" / "r", here / "home" / "yaml"):
        assert {"checkpoints", "finished", "fit.yaml"} <= {path.name for path in run.iterdir()}
    assert (
        main(["test", "--config", "line.yaml", "--run", "~/runs/r", "--ckpt_path=~/runs/r/checkpoints/last.ckpt"]) == 0
    )


@pytest.mark.parametrize("text", ["", " ", "a/$X", "${X}", "a\0", "a" * 256, "~nobody-of-this-name/x"])
def test_a_path_that_nobody_means_is_refused(text):
    with pytest.raises(ValueError, match=r"empty path|variables|such a name|no such user"):
        given_path(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["phantoms", "--out", ""], "--out: an empty path."),
        (["phantoms", "--out", "$X"], "--out: $X: variables are not filled in here."),
        (["phantoms", "--out", "p", "--patients", "few"], "--patients: few is not a whole number."),
        (["prepare", "s", "--out", "p", "--max_broken", ".nan"], "--max_broken: nan is no number"),
        (["prepare", "s", "--out", "p", "--fractions", "[.nan,.5,.5]"], "nan is no number"),
    ],
)
def test_flags_of_tools_are_checked_in_the_same_way(here, capsys, words, said):
    assert main(words) == 2
    assert said in _error(capsys)
    assert [path.name for path in here.iterdir()] == ["line.yaml"]
