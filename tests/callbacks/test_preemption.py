"""One process that is told to stop; several are told in tests/preempted.py."""

import json
import signal
import time

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.preemption import Preemption, requeue
from dermsynth.errors import InputError
from dermsynth.run_folder import last_checkpoint
from tests.preempted import run
from tests.processes import Ranks

CONFIG = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 200,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [{"class_path": "tests.preempted.Diary"}, {"class_path": "callbacks.preemption.Preemption"}],
    },
    "model": {"class_path": "toy.Line"},
    "data": {"class_path": "toy.Data"},
}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([signal.SIGTERM], 75),
        ([signal.SIGUSR1], 75),
        ([signal.SIGUSR1, signal.SIGTERM], 75),
        ([signal.SIGINT], 130),
        ([signal.SIGINT, signal.SIGINT], 130),
    ],
    ids=lambda value: " ".join(number.name for number in value) if isinstance(value, list) else str(value),
)
def test_the_status_says_that_it_is_not_complete(tmp_path, sent, status):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    ranks = Ranks(["fit", "--config", "config.json", "--run", "run"], 1, tmp_path)
    diary = tmp_path / "run" / "diary-0"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (diary.is_file() and len(diary.read_text().split()) > 3):
        time.sleep(0.01)
    for number in sent:
        ranks.send(0, number)
    assert ranks.statuses() == [status], ranks.log(0)
    assert "Traceback" not in ranks.log(0)
    if sent != [signal.SIGINT] * 2:
        done = int(diary.read_text().split()[-1])
        assert torch.load(last_checkpoint(tmp_path / "run"), weights_only=True)["global_step"] == done
        assert "run: stopped by a signal after" in ranks.log(0)
    assert ("Ctrl-C again stops at once" in ranks.log(0)) == (signal.SIGINT in sent)


@pytest.mark.slow
def test_two_ranks_stop_together_and_go_on_to_the_same_end(tmp_path):
    assert run(trials=4, seed=0, folder=tmp_path) == []


def test_it_must_know_of_the_best_checkpoint():
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Preemption(), ModelCheckpoint()])
    with pytest.raises(InputError, match="must come after ModelCheckpoint"):
        trainer.callbacks[-2].setup(trainer, None, "fit")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of two commands: what squeue says, and what scontrol was asked."""

    def make(state, refusal=""):
        asked = tmp_path / "asked"
        end = f"echo '{refusal}' >&2; exit 1" if refusal else "exit 0"
        for name, lines in (("squeue", f"echo {state}"), ("scontrol", f'echo "$@" > {asked}; {end}')):
            (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        return asked

    return make


def test_a_job_is_put_back_into_the_queue(slurm):
    asked = slurm("RUNNING")
    assert requeue() == "Job 17 is back in the queue. "
    assert asked.read_text() == "requeue 17\n"


def test_of_an_array_one_task_is(slurm, monkeypatch):
    asked = slurm("RUNNING")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert "Job 17_4 is back" in requeue()
    assert asked.read_text() == "requeue 17_4\n"


def test_a_cancelled_job_is_not(slurm):
    asked = slurm("COMPLETING")
    assert "so it is not put back" in requeue()
    assert not asked.exists()


def test_a_refusal_is_said(slurm):
    slurm("RUNNING", "Requested operation is presently disabled")
    assert "refuses to put job 17 back into the queue (Requested operation is presently disabled)" in requeue()


def test_without_slurm_there_is_no_queue(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue() == ""
