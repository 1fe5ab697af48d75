"""A study that is killed at random moments, and one of which a step fails."""

import os
import random
import shutil
import signal
import time

import pytest
import yaml

from tests.processes import TIMEOUT, start
from tests.study.helpers import make_study, wait_for_the_lock, work


def logs(folder):
    return "\n".join(file.read_text() for file in [folder / "log", *sorted((folder / "out" / "logs").glob("*"))])


def begin(file, folder, out):
    (process,) = start(work, 1, str(file), str(out), str(folder / "log"))
    return process


def comparison(out):
    return {name: (out / "comparison" / name).read_text() for name in ("comparison.txt", "comparison.csv")}


def kill(process, number=signal.SIGKILL):
    """The whole group, as soon as it is one."""
    while process.is_alive():
        try:
            os.killpg(process.pid, number)
            return
        except ProcessLookupError:
            time.sleep(0.001)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_table(base, tmp_path):
    """Its steps too, as whatever kills the group does. Where a study ends before the last kill, another is begun."""
    file = make_study(tmp_path, base)
    began = time.monotonic()
    whole = begin(file, tmp_path, tmp_path / "whole")
    whole.join(TIMEOUT)
    took = time.monotonic() - began
    assert whole.exitcode == 0, logs(tmp_path)
    expected, out = comparison(tmp_path / "whole"), tmp_path / "out"
    kills = 0
    while kills < 20:
        process = begin(file, tmp_path, out)
        process.join(random.uniform(0, took / 3))
        if process.exitcode is None:
            kill(process)
            kills += 1
        process.join(TIMEOUT)
        assert process.exitcode in (0, -signal.SIGKILL), logs(tmp_path)
        wait_for_the_lock(out)
        if process.exitcode == 0:
            assert comparison(out) == expected
            assert not (out / "replaced").exists()
            shutil.rmtree(out)
    last = begin(file, tmp_path, out)
    last.join(TIMEOUT)
    assert last.exitcode == 0, logs(tmp_path)
    assert comparison(out) == expected
    assert not (out / "replaced").exists()


def test_told_to_stop_it_lets_its_steps_save_their_place(base, tmp_path):
    file = make_study(tmp_path, base)
    change(file, "classifier", "flags", {"trainer.max_steps": 4000})
    change(file, "arms", "real", {"config": str(tmp_path / "arms" / "real.yaml")})
    out = tmp_path / "out"
    process, last = begin(file, tmp_path, out), out / "runs" / "real-seed0" / "checkpoints" / "last.ckpt"
    until = time.monotonic() + TIMEOUT
    while not last.exists():
        assert process.is_alive(), logs(tmp_path)
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(TIMEOUT)
    assert process.exitcode == 128 + signal.SIGTERM, logs(tmp_path)
    said = logs(tmp_path)
    assert "fit real-seed0: stopped, its place saved" in said
    assert "the same command resumes it" in said
    wait_for_the_lock(out, 1)


def test_a_failure_stops_what_depends_on_it_and_nothing_else(base, tmp_path):
    file = make_study(tmp_path, base)
    # A learning rate with which the weights are not finite after a step.
    change(file, "arms", "hybrid", {"config": str(tmp_path / "arms" / "hybrid.yaml"), "model.optimizer.lr": 1e30})
    out = tmp_path / "out"
    process = begin(file, tmp_path, out)
    process.join(TIMEOUT)
    assert process.exitcode == 1, logs(tmp_path)
    said = (tmp_path / "log").read_text()
    assert "fit hybrid-gen0-seed0: FAILED" in said
    assert f"(log: {out}/logs/fit-hybrid-gen0-seed0.log)" in said
    assert "1 of 13 steps failed, and 4 that need what they make were not begun" in said
    assert (out / "runs" / "repeated-seed0" / "predictions.csv").is_file()
    assert not (out / "comparison").exists()
    # Fixed, the same command does what is left, and keeps what was trained otherwise.
    change(file, "arms", "hybrid", str(tmp_path / "arms" / "hybrid.yaml"))
    process = begin(file, tmp_path, out)
    process.join(TIMEOUT)
    assert process.exitcode == 0, logs(tmp_path)
    assert (out / "comparison" / "comparison.txt").is_file()


def change(file, key, name, value):
    content = yaml.safe_load(file.read_text())
    content[key][name] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))
