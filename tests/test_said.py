"""The command that each command's last line names, run as it is printed."""

import re
import shlex
from pathlib import Path

import pytest

from dermsynth.cli import main
from dermsynth.said import after_test
from tests.evaluation.written_runs import write

ROOT = Path(__file__).parents[1]
QUICK = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "1", "--trainer.accelerator", "cpu"]
QUICK += ["--trainer.enable_progress_bar", "false", "--data.batch_size", "8"]
QUICK += ["--model.lr_scheduler.warmup_steps", "0"]


def printed(capsys):
    """The words of the command that the output so far ends with."""
    last = capsys.readouterr().out.strip().splitlines()[-1]
    return shlex.split(re.fullmatch(r"next: python -m dermsynth (.+)", last)[1])


def test_each_next_command_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert main(["phantoms", "--out", "my lesions", "--patients", "12", "--size", "64"]) == 0
    assert main([*printed(capsys), "--processes", "1"]) == 0
    train = printed(capsys)
    assert "configs/tiny/vit.yaml" in train
    assert main([*train, *QUICK]) == 0
    assert main(printed(capsys)) == 0
    (run,) = (tmp_path / "runs").iterdir()
    said = capsys.readouterr().out
    assert f"predictions: runs/{run.name}/predictions.csv\nnext: train and test another arm" in said
    assert re.search(r"^test/accuracy +\d\.\d{3}$", said, re.MULTILINE)
    assert (run / "predictions.csv").is_file()
    # A second arm, after whose test the two can be compared.
    other = [word.replace(run.name, "other-seed0") for word in train]
    assert main([*other, *QUICK, "--model.optimizer.lr", "0.01"]) == 0
    assert main(printed(capsys)) == 0
    assert main(printed(capsys)) == 0
    assert (tmp_path / "comparison/comparison.txt").is_file()
    # The exported classifier is opened by the line that says so.
    assert main(["export", f"runs/{run.name}/checkpoints/last.ckpt", "--out", "models/vit"]) == 0
    opened = re.search(r"^open it with: (transformers\..+)$", capsys.readouterr().out, re.MULTILINE)
    import transformers  # noqa: F401

    assert eval(opened[1]).config.num_labels == 2


def test_runs_of_one_arm_are_not_offered_for_a_comparison_whatever_their_folders_are_called(tmp_path):
    for name, arm in (("hybrid-gen0-seed0", "hybrid"), ("hybrid-gen1-seed0", "hybrid"), ("real-seed0", "real")):
        run = write(tmp_path / name)
        (run / "fit.yaml").write_text(f"arm: {arm}\nseed_everything: 0\n")
        assert after_test(run).startswith("python -m dermsynth compare" if arm == "real" else "train and test another")
    # Nor does a run that cannot be read end the test of another.
    (tmp_path / "real-seed0/fit.yaml").write_text("arm: [")
    assert after_test(tmp_path / "hybrid-gen0-seed0").startswith("train and test another")


def test_images_of_512_pixels_are_for_the_large_classifier(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert main(["phantoms", "--out", "drawn", "--patients", "4", "--size", "256"]) == 0
    prepare = printed(capsys)
    assert main([*prepare, "--processes", "1"]) == 0
    train = printed(capsys)
    assert "configs/vit_b16.yaml" in train
    with pytest.raises(SystemExit) as ended:
        main([*train, "--trainer.accelerator", "cpu", "--print_config"])
    assert ended.value.code == 0
