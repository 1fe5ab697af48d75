"""What a study gives to sbatch and its script to srun; a real Slurm is in tests/slurm/test_study.py."""

import io
import json
import re
import shlex
import shutil

import pytest

from dermsynth.cli import main
from dermsynth.errors import InputError
from dermsynth.study import declaration
from dermsynth.study.overview import Overview
from dermsynth.study.plan import plan
from dermsynth.study.slurm import SlurmRunner
from tests.builders import make_set
from tests.jobs import ROOT, commands, dermsynth, job
from tests.study.helpers import change, content, recipes, write_yaml

SBATCH = """printf '%q ' "$@" >> submitted; echo >> submitted
if [ "$(wc -l < submitted)" = "${REFUSED:-no}" ]; then echo 'invalid partition' >&2; exit 1; fi
wc -l < submitted"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A project's folder, among commands of Slurm that only note what they are given."""
    (tmp_path / "slurm").symlink_to(ROOT / "slurm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dermsynth.study.slurm._POLL", 0)
    bodies = {"sbatch": SBATCH, "squeue": "cat queue 2> /dev/null || true", "scancel": 'echo "$@" > cancelled'}
    monkeypatch.setenv("PATH", commands(tmp_path, bodies))


@pytest.fixture
def runner(cluster, tmp_path):
    """Of a study with two shards and two seeds."""
    declared = declare(tmp_path)
    declared["generator"] |= {"shards": 2}
    declared["classifier"] |= {"seeds": [0, 1]}
    return slurm_runner(write_yaml(tmp_path / "study.yaml", declared), tmp_path / "out")


def declare(folder):
    """What a study file says, of what lies in the folder."""
    make_set(folder / "real")
    recipes(folder, "base")
    return content(folder)


def slurm_runner(file, out):
    steps = plan(declaration.read(file), out)
    return SlurmRunner(steps, out, ["--partition=long"], Overview(steps, 1, io.StringIO()))


def in_the_queue(folder, out, tasks, state="PENDING"):
    """The study's tasks are in the queue, and have ended at the second look after that which submits none."""
    (out / "jobs.json").write_text(json.dumps(tasks))
    (folder / "queue").write_text("".join(f"{task}|{state}\n" for task in tasks))
    (folder / "bin/squeue").write_text("#!/bin/bash\ncat queue; sed -i 's/|.*/|COMPLETED/' queue\n")


def submitted(folder):
    return [shlex.split(line) for line in (folder / "submitted").read_text().splitlines()]


def waits(lines):
    """What each job waits for."""
    prefix = "--dependency="
    return [next((word.removeprefix(prefix) for word in words if word.startswith(prefix)), None) for words in lines]


def test_steps_that_wait_for_the_same_are_an_array(runner, tmp_path):
    with pytest.raises(InputError, match=r"3 of 16 steps failed, and 13 that need"):  # none of the jobs does a thing
        runner.run()
    lines = submitted(tmp_path)
    arrays = [next((word for word in words if word.startswith("--array")), None) for words in lines]
    assert arrays == ["--array=0-0", "--array=0-1", "--array=0-1", "--array=0-3", None]
    after_all = "afterok:3_0:3_1:4_0:4_1:4_2:4_3"
    assert waits(lines) == [None, "afterok:1_0", None, "afterok:2_0:2_1", after_all]
    assert all("--partition=long" in words for words in lines)
    assert lines[-1][lines[-1].index("slurm/tool.sbatch") + 1] == "compare"
    # A task's file holds the fit and the test of one run.
    tasks = sorted((tmp_path / "out/slurm").glob("*-fit.*"))
    (hybrid,) = [task for task in tasks if "hybrid-gen0-seed1" in task.read_text()]
    fit, test = map(shlex.split, hybrid.read_text().splitlines())
    assert (fit[0], test[0]) == ("fit", "test")
    assert test[-2:] == ["--run", str(tmp_path / "out/runs/hybrid-gen0-seed1")]


def test_what_is_made_of_one_generator_waits_for_that_one_alone(cluster, tmp_path):
    declared = declare(tmp_path)
    declared["generator"] |= {"seeds": [0, 1]}
    runner = slurm_runner(write_yaml(tmp_path / "study.yaml", declared), tmp_path / "out")
    with pytest.raises(InputError, match="steps failed"):
        runner.run()
    steps_of = json.loads((tmp_path / "out/jobs.json").read_text())
    found = {}
    for number, needs in enumerate(waits(submitted(tmp_path)), 1):
        needed = {steps_of[task][0] for task in (needs or "").removeprefix("afterok:").split(":") if task}
        found |= {steps[0]: needed for task, steps in steps_of.items() if task.partition("_")[0] == str(number)}
    assert found.pop("compare") == {f"fit {run}-seed0" for run in ("real", "repeated", "hybrid-gen0", "hybrid-gen1")}
    assert found == {
        "generator-seed0": set(),
        "generator-seed1": set(),
        "synthetic-seed0": {"generator-seed0"},
        "synthetic-seed1": {"generator-seed1"},
        "fit real-seed0": set(),
        "fit repeated-seed0": {"synthetic-seed0"},
        "fit hybrid-gen0-seed0": {"synthetic-seed0"},
        "fit hybrid-gen1-seed0": {"synthetic-seed1"},
    }


def test_what_is_refused_leaves_nothing_submitted(runner, tmp_path, monkeypatch):
    monkeypatch.setenv("REFUSED", "3")
    with pytest.raises(InputError, match=r"--slurm: sbatch refused out-2-fit, and nothing is left submitted: invalid"):
        runner.run()
    assert (tmp_path / "cancelled").read_text() == "1 2\n"
    assert not (tmp_path / "out/jobs.json").exists()


def test_jobs_that_are_in_the_queue_are_watched_and_none_is_submitted(runner, tmp_path):
    (tmp_path / "out").mkdir()
    in_the_queue(tmp_path, tmp_path / "out", {"7_0": ["generator-seed0"]})
    with pytest.raises(InputError, match="1 of 16 steps failed"):
        runner.run()
    assert not (tmp_path / "submitted").exists()


def test_jobs_of_steps_that_the_study_no_longer_has(runner, tmp_path):
    (tmp_path / "out").mkdir()
    in_the_queue(tmp_path, tmp_path / "out", {"7_0": ["generator-seed0"], "8_0": ["fit mixed-gen0-seed0"], "8_1": []})
    message = r"jobs\.json: jobs in the queue are to do `fit mixed-gen0-seed0`, which .*: scancel 7 8$"
    with pytest.raises(InputError, match=message):
        runner.run()
    assert not (tmp_path / "submitted").exists()
    # Once they are over, they are nobody's concern.
    (tmp_path / "queue").write_text("")
    with pytest.raises(InputError, match="3 of 16 steps failed"):
        runner.run()


def test_what_was_made_of_a_step_that_is_done_again_is_made_again(again, cluster, tmp_path):
    file, out = again
    shutil.rmtree(out / "runs/real-seed0")
    with pytest.raises(InputError, match="1 of 13 steps failed, and 4 that"):
        slurm_runner(file, out).run()
    moved = {folder.name for folder in (out / "replaced").iterdir()}
    assert moved == {"test-on-elsewhere-real-seed0-1", "compare-1", "compare-on-elsewhere-1"}
    assert (out / "runs/hybrid-gen0-seed0/predictions.csv").is_file()


def test_nothing_runs_here_beside_jobs_that_are_in_the_queue(runner, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    in_the_queue(tmp_path, tmp_path / "out", {"7_0": ["generator-seed0"], "8_0": ["fit real-seed0"]})
    assert main(["study", "study.yaml", "--out", "out"]) == 2
    assert "--out out: 2 tasks of this study are in Slurm's queue." in (said := capfd.readouterr().err)
    assert said.endswith("or end them before it runs here: scancel 7 8\n")
    assert not (tmp_path / "out/logs").exists()


def test_a_study_that_is_changed_while_its_jobs_run_does_not_pass_for_one_that_was_not(again, cluster, tmp_path):
    file, out = again
    steps = plan(declaration.read(file), out)
    tasks = {str(number): [step.name] for number, step in enumerate(steps)}
    in_the_queue(tmp_path, out, tasks, "RUNNING")
    slurm_runner(file, out).run()
    change(file.parent / "vit.yaml", "model.init_args.optimizer.init_args.lr", 0.02)
    in_the_queue(tmp_path, out, tasks, "RUNNING")
    with pytest.raises(InputError, match="was changed while it ran, so that fit real-seed0, fit repeated-seed0, fit"):
        slurm_runner(file, out).run()
    assert not (tmp_path / "submitted").exists()


def test_a_machine_without_slurm(runner, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["study", "study.yaml", "--out", "out", "--slurm"]) == 2
    assert "--slurm: no sbatch on this machine; it belongs to no Slurm cluster." in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_the_projects(runner, tmp_path, capfd):
    (tmp_path / "slurm").unlink()
    assert main(["study", "study.yaml", "--out", "out", "--slurm"]) == 2
    assert f"--slurm: no slurm/study.sbatch in {tmp_path}." in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_runs_its_steps_one_after_another(tmp_path):
    steps = tmp_path / "steps.3"
    fit = ["fit", "--config", "configs/vit_b16.yaml", "--run", "runs/my run", "--data.classes", "[benign, malignant]"]
    test = ["test", "--config", "runs/my run/fit.yaml", "--ckpt_path", "best.ckpt", "--run", "runs/my run"]
    steps.write_text(f"{shlex.join(fit)}\n{shlex.join(test)}\n")
    called, done = job("study.sbatch", [str(tmp_path / "steps")], tmp_path, SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    layout = ["--trainer.num_nodes", "2", "--trainer.devices", "4"]
    for words, expected in zip(map(dermsynth, called), (fit, test), strict=True):
        assert words[-4:] == layout
        assert sorted(words[:-4]) == sorted(expected)
        assert words[0] == expected[0]


def test_a_set_that_a_stopped_task_had_completed_is_not_made_again(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/metadata.csv").touch()
    (tmp_path / "steps.0").write_text("predict --config configs/generate_sd15.yaml --run set\n")
    called, done = job("study.sbatch", [str(tmp_path / "steps")], tmp_path, SLURM_ARRAY_TASK_ID="0")
    assert (called, done.returncode) == ([], 0)


def test_images_decoded_on_a_nodes_disk_are_of_fits_without_a_latent_cache(tmp_path):
    common = re.sub(r"^LOCAL_DISK=", "LOCAL_DISK=/local", (ROOT / "slurm/common.sh").read_text(), flags=re.MULTILINE)
    lines = ["fit --config configs/vit_b16.yaml --run a", "test --config a/fit.yaml --ckpt_path c --run a"]
    lines += ["fit --config configs/derm_t2im.yaml --run b"]
    (tmp_path / "steps.0").write_text("\n".join(lines) + "\n")
    called, done = job("study.sbatch", [str(tmp_path / "steps")], tmp_path, common, SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 0, done.stderr
    assert ["--data.pixel_cache=/local" in words for words in called] == [True, False, False]
