"""One process that is told to stop; several are told in tests/preempted.py."""

import signal
import time

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.preemption import Preemption, requeue
from dermsynth.errors import InputError
from dermsynth.run.folder import last_checkpoint
from tests import preempted
from tests.processes import TIMEOUT, Ranks
from tests.toy import Data, Line

CONFIG = """\
trainer:
  accelerator: cpu
  precision: 32-true
  max_epochs: 200
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: toy.Held, init_args: {hook: HOOK}}, {class_path: callbacks.preemption.Preemption}]
model: {class_path: toy.Line}
data: {class_path: toy.Data}
"""


def held(folder, hook):
    """A `fit` that stands still in a hook."""
    (folder / "config.yaml").write_text(CONFIG.replace("HOOK", hook))
    ranks = Ranks(["fit", "--config", "config.yaml", "--run", "run"], 1, folder)
    until = time.monotonic() + TIMEOUT
    while not (folder / "run/held-0").is_file():
        assert time.monotonic() < until, ranks.log(0)
        time.sleep(0.01)
    return ranks


def send(folder, ranks, signals):
    """One after another is dealt with: of several that wait, the one of the lowest number would come first."""
    held = folder / "run/held-0"
    for number in signals:
        ranks.send(0, number)
        for _ in range(2):  # it may have been about to touch it
            before = held.stat().st_mtime_ns
            while ranks.processes[0].is_alive() and held.stat().st_mtime_ns == before:
                time.sleep(0.001)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([signal.SIGTERM], 75),
        ([signal.SIGUSR1], 75),
        ([signal.SIGUSR1, signal.SIGTERM], 75),
        ([signal.SIGUSR1, signal.SIGINT], 75),
        ([signal.SIGINT, signal.SIGTERM], 75),
        ([signal.SIGINT], 130),
    ],
    ids=lambda value: " ".join(number.name for number in value) if isinstance(value, list) else str(value),
)
def test_it_saves_its_place_and_its_status_says_that_it_is_not_complete(tmp_path, sent, status):
    ranks = held(tmp_path, "on_train_batch_start")
    send(tmp_path, ranks, sent)
    (tmp_path / "run/release").touch()
    assert ranks.statuses() == [status], ranks.log(0)
    assert "Traceback" not in ranks.log(0)
    assert torch.load(last_checkpoint(tmp_path / "run"), weights_only=True)["global_step"] == 1
    assert "run: stopped by a signal after step 1. " in ranks.log(0)
    assert ("Ctrl-C again stops at once" in ranks.log(0)) == (signal.SIGINT in sent)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    ranks = held(tmp_path, "on_train_batch_start")
    send(tmp_path, ranks, [signal.SIGINT, signal.SIGINT])
    assert ranks.statuses() == [130], ranks.log(0)
    assert "Traceback" not in ranks.log(0)
    assert not last_checkpoint(tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGUSR1, -signal.SIGUSR1), (signal.SIGINT, 130)],
)
def test_before_training_starts_it_ends_at_once(tmp_path, sent, status):
    ranks = held(tmp_path, "on_sanity_check_start")
    send(tmp_path, ranks, [sent])
    assert ranks.statuses() == [status], ranks.log(0)
    assert "Traceback" not in ranks.log(0)
    assert not last_checkpoint(tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks_stop_together_and_go_on_to_the_same_end(tmp_path, capsys):
    assert preempted.run(4, 0, tmp_path) == []
    assert "4 trials, 0 went wrong" in capsys.readouterr().out


def test_nobody_listens_after_training_broke_off(tmp_path):
    class Broken(Line):
        def training_step(self, batch, index):
            assert signal.getsignal(signal.SIGTERM) not in before
            raise ZeroDivisionError

    numbers = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
    before = [signal.getsignal(number) for number in numbers]
    callbacks = [ModelCheckpoint(tmp_path), Preemption()]
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=callbacks, enable_progress_bar=False)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken(), Data())
    assert [signal.getsignal(number) for number in numbers] == before


def test_it_must_know_of_the_best_checkpoint():
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Preemption(), ModelCheckpoint()])
    with pytest.raises(InputError, match="must come after ModelCheckpoint"):
        trainer.callbacks[-2].setup(trainer, None, "fit")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of two commands: what squeue does at each call, and what scontrol was asked."""

    def make(*squeue, scontrol="true"):
        asked = tmp_path / "asked"
        answers = "\n".join(f"{number}) {answer} ;;" for number, answer in enumerate(squeue))
        counted = f"n=$(cat {tmp_path}/n || echo 0); echo $((n + 1)) > {tmp_path}/n\ncase $n in\n{answers}\nesac"
        for name, lines in (("squeue", counted), ("scontrol", f'echo "$@" > {asked}; {scontrol}')):
            (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        return asked

    return make


def test_a_job_is_put_back_into_the_queue(slurm):
    asked = slurm("echo RUNNING")
    assert requeue() == "Job 17 is back in the queue. "
    assert asked.read_text() == "requeue 17\n"


def test_of_an_array_one_task_is(slurm, monkeypatch):
    asked = slurm("echo RUNNING")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert "Job 17_4 is back" in requeue()
    assert asked.read_text() == "requeue 17_4\n"


@pytest.mark.parametrize(("squeue", "state"), [("echo COMPLETING", "COMPLETING"), ("true", "unknown to squeue")])
def test_a_job_that_does_not_run_is_not(slurm, squeue, state):
    asked = slurm(squeue)
    assert requeue() == f"Job 17 is {state}, not RUNNING, so it is not put back into the queue. "
    assert not asked.exists()


def test_squeue_is_asked_again(slurm):
    asked = slurm("exit 1", "echo RUNNING")
    assert requeue() == "Job 17 is back in the queue. "
    assert asked.exists()


@pytest.mark.parametrize(("said", "why"), [("echo no answer >&2;", "no answer"), ("", "squeue ended with status 1")])
def test_a_job_that_may_have_been_cancelled_is_not_put_back(slurm, said, why):
    asked = slurm(f"{said} exit 1", f"{said} exit 1")
    assert requeue() == f"Job 17 could not be put back into the queue ({why}); submit it again. "
    assert not asked.exists()


def test_a_refusal_is_said(slurm):
    slurm("echo RUNNING", scontrol="echo Requested operation is presently disabled >&2; exit 1")
    why = "Requested operation is presently disabled"
    assert requeue() == f"Job 17 could not be put back into the queue ({why}); submit it again. "


def test_where_there_are_no_commands_of_slurm_it_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert "could not be put back into the queue ([Errno 2] No such file or directory: 'squeue')" in requeue()


def test_without_slurm_there_is_no_queue(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue() == ""
