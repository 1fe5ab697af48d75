"""Two trainings of one run's folder: the second one waits, is refused, and breaks nothing of the first."""

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import contextmanager

import pytest

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.run import lock as run_lock
from dermsynth.run.folder import FINISHED, last_checkpoint
from dermsynth.run.lock import COMPARE_LOCK, LOCK, TEST_LOCK, locked
from dermsynth.tools.compare import compare
from tests.processes import TIMEOUT, Ranks
from tests.tools.compared import draw_runs

FORKS = multiprocessing.get_context("fork")
RECIPE = """\
trainer:
  accelerator: cpu
  precision: 32-true
  devices: 1
  max_epochs: -1
  max_steps: STEPS
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
model: {class_path: tests.toy.Line}
data: {class_path: tests.toy.Data}
"""
COMMAND = ["fit", "--config", "recipe.yaml", "--run", "run"]


def wait_until(true, log=lambda: ""):
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, log()
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command finds `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dermsynth"])
    return tmp_path


def test_a_second_training_is_refused_and_starts_at_once_when_the_first_is_killed(folder, monkeypatch, capsys):
    (folder / "recipe.yaml").write_text(RECIPE.replace("STEPS", "100000000"))
    run = folder / "run"
    processes = []
    try:
        first = Ranks(COMMAND, 1, folder, "first")
        processes += first.processes
        wait_until(last_checkpoint(run).exists, lambda: first.log(0))
        # What the first is writing, as it seems to the second.
        part = last_checkpoint(run).with_name(".last.ckpt.0123456789abcdef.part")
        part.touch()
        with monkeypatch.context() as patch:
            patch.setattr(run_lock, "PATIENCE", 0.0)
            assert main(COMMAND) == 2
        whose = f"process {first.processes[0].pid} on {socket.gethostname()}"
        assert f"--run run: {whose} is at work there. Let it end, or give another --run." in capsys.readouterr().err
        assert part.exists()

        second = Ranks(COMMAND, 1, folder, "second")
        processes += second.processes
        wait_until((folder / "second-0.log").exists)
        wait_until(lambda: f"{whose} is at work there; waiting 30 s" in second.log(0), lambda: second.log(0))
        assert part.exists()
        first.send(0, signal.SIGKILL)
        wait_until(lambda: not part.exists(), lambda: second.log(0))
        assert (run / LOCK).read_text().startswith(f"process {second.processes[0].pid} on ")
        before = last_checkpoint(run).stat().st_ino
        wait_until(lambda: last_checkpoint(run).stat().st_ino != before, lambda: second.log(0))
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_forked_process_that_outlives_the_training_does_not_keep_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    here, there = os.pipe()

    def train():
        with locked(tmp_path):
            loader = os.fork()
            if loader:
                os.write(there, str(loader).encode())
            time.sleep(60)

    process = FORKS.Process(target=train)
    process.start()
    loader = int(os.read(here, 20))
    try:
        with pytest.raises(InputError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
        process.kill()
        process.join()
        os.kill(loader, 0)  # still there
        with locked(tmp_path):
            assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on")
    finally:
        os.kill(loader, signal.SIGKILL)


@contextmanager
def held_elsewhere(folder, name):
    """Another process is in a folder's lock."""
    here, there = os.pipe()

    def hold():
        with locked(folder, name):
            os.write(there, b"x")
            time.sleep(TIMEOUT)

    process = FORKS.Process(target=hold)
    process.start()
    os.read(here, 1)
    try:
        yield f"process {process.pid} on {socket.gethostname()}"
    finally:
        process.kill()
        process.join()


def test_one_test_at_a_time_and_beside_a_training(folder, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    (folder / "recipe.yaml").write_text(RECIPE.replace("STEPS", "2"))
    assert main(COMMAND) == 0
    test = ["test", *COMMAND[1:], "--ckpt_path", "run/checkpoints/last.ckpt"]
    with held_elsewhere(folder / "run", TEST_LOCK) as whose:
        assert main(test) == 2
    assert f"--run run: {whose} is at work there. Let it end, or give another --run." in capsys.readouterr().err
    with held_elsewhere(folder / "run", LOCK):
        assert main(test) == 0


def test_one_comparison_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    runs, _, _ = draw_runs(tmp_path, {"real": 1.0, "hybrid": 1.4}, seeds=(1,))
    with held_elsewhere(tmp_path / "out", COMPARE_LOCK) as whose:
        with pytest.raises(InputError, match=f"--out .*: {whose} is at work there. Let it end, or give another --out"):
            compare(runs, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [COMPARE_LOCK]


def test_what_another_process_has_trained_while_this_one_began_is_not_trained_over(folder, monkeypatch, capsys):
    (folder / "recipe.yaml").write_text(RECIPE.replace("STEPS", "2"))

    @contextmanager
    def after_another(run):
        (run / "checkpoints").mkdir(parents=True)
        last_checkpoint(run).touch()
        yield

    monkeypatch.setattr("dermsynth.run.training_cli.locked", after_another)
    assert main(COMMAND) == 2
    assert "--run run: another process has just trained there. Give the same command again." in capsys.readouterr().err
    assert not last_checkpoint(folder / "run").stat().st_size
    assert not (folder / "run" / FINISHED).exists()


def test_what_another_process_has_finished_while_this_one_waited_is_complete(folder, monkeypatch, capsys):
    (folder / "recipe.yaml").write_text(RECIPE.replace("STEPS", "2"))

    @contextmanager
    def after_another(run):
        (run / "checkpoints").mkdir(parents=True)
        last_checkpoint(run).touch()
        (run / FINISHED).write_text("2 steps, 1 epochs\n")
        yield

    monkeypatch.setattr("dermsynth.run.training_cli.locked", after_another)
    with pytest.raises(SystemExit) as end:
        main(COMMAND)
    assert end.value.code == 0
    assert capsys.readouterr().out.endswith("run is complete: another process has just trained it. Nothing is done.\n")
    assert not last_checkpoint(folder / "run").stat().st_size


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(InputError, match=r"\.training: cannot be written \(Is a directory\)"), locked(tmp_path):
        pass
