"""A real Slurm of two virtual nodes, and a project's folder to submit from: jobs, signals and requeues are no mocks."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from dermsynth.data.sets import manifest
from tests.builders import CLASSES, make_set

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
HOW = "they start a Slurm of their own, as root. To run them: sudo make test-slurm"
LOCK = Path(tempfile.gettempdir(), "dermsynth-slurm.lock")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}


def pytest_collection_modifyitems(config, items):
    if "slurm" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason=HOW))


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.getreports("skipped") if HOW in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"tests/slurm: {len(skipped)} tests were skipped: {HOW}")


class Slurm:
    """The cluster, as its users see it: `sbatch`, `squeue` and so on, in the project's folder."""

    def __init__(self, state, project, env):
        self.state, self.project, self.env = state, project, env

    def run(self, *command, check=True):
        """A command of Slurm, or a script of ours; what it printed."""
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=self.project, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout if check else done

    def sbatch(self, *arguments):
        """Submit; the job's id. Small jobs, for virtual nodes."""
        small = ["--partition=test", "--cpus-per-task=1", "--time=10"]
        return self.run("sbatch", "--parsable", *small, *arguments).strip()

    def states(self, job):
        """State of a job, or of each task of an array, by id."""
        out = self.run("squeue", "--noheader", "--states=all", "--array", f"--jobs={job}", "--format=%i|%T")
        return dict(line.split("|") for line in out.split())

    def wait(self, job, seconds=180):
        """Until a job, all its tasks too, has ended; the states that occur."""
        self.until(lambda: set(self.states(job).values()) <= ENDED, f"the end of job {job}", seconds)
        return set(self.states(job).values())

    def until(self, true, what, seconds=120):
        deadline = time.monotonic() + seconds
        while not (found := true()):
            if time.monotonic() > deadline:
                queue = self.run("squeue", "--states=all")
                logs = "".join(f"== {file}\n{file.read_text()[-3000:]}" for file in self.project.rglob("*.out"))
                pytest.fail(f"no {what} within {seconds} s\n{queue}\n{logs}")
            time.sleep(0.2)
        return found

    def rush(self, job):
        """Let a requeued job start now; Slurm would wait for two minutes."""
        self.run(CLUSTER, "rush", self.state, job)

    def log(self, job):
        """What a job has printed."""
        return "".join(file.read_text() for file in self.project.rglob(f"*-{job}.out"))


@pytest.fixture(scope="session")
def cluster():
    """Folder of the running cluster; one on a machine, so that another session waits for its end."""
    # Asked for by name, the tests do not pass by.
    assert shutil.which("slurmctld"), "Slurm is not installed: tests/slurm/cluster.sh install"
    assert os.getuid() == 0, "Slurm's daemons need root"
    # A short path: that of munge's socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="dermsynth-slurm-") as folder, LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([CLUSTER, "up", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([CLUSTER, "down", folder], check=True)


@pytest.fixture(scope="module")
def slurm(cluster, base, tmp_path_factory):
    """The cluster, and a project's folder with a space in its name and two recipes that take seconds."""
    project = tmp_path_factory.mktemp("project") / "my project"
    project.mkdir()
    for name in ("slurm", "dermsynth", "callbacks"):
        (project / name).symlink_to(ROOT / name)
    (project / ".venv").symlink_to(sys.prefix)
    shutil.copy(Path(__file__).with_name("seen.py"), project)
    real = make_set(project / "sets/real")
    split = manifest.train_split_sha256(manifest.read(real).records)
    make_set(project / "sets/prior", dict.fromkeys(CLASSES, 4), "train", "synthetic", train_split_sha256=split)
    (project / "configs").mkdir()
    for name, recipe in recipes(base).items():
        (project / f"configs/{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    env |= {"SLURM_CONF": str(cluster / "slurm.conf"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return Slurm(cluster, project, env)


def recipes(base):
    """Configurations by name: both models at the smallest size, generation, and an arm with generated images."""

    def part(class_path, **init_args):
        return {"class_path": class_path, "init_args": init_args}

    def best(monitor, mode):
        options = {"filename": "best", "monitor": monitor, "mode": mode, "enable_version_counter": False}
        return part("lightning.pytorch.callbacks.ModelCheckpoint", **options)

    def trainer(*callbacks):
        return {
            "accelerator": "cpu",
            "precision": "32-true",
            "max_steps": 4,
            "val_check_interval": 4,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [*callbacks, part("seen.Seen"), part("callbacks.preemption.Preemption")],
        }

    optimizer = part("torch.optim.AdamW", lr=1e-3)
    data = {"real": "sets/real", "classes": CLASSES, "size": 16, "batch_size": 4}
    tiny = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 16}
    tiny |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    mixing, classification = "dermsynth.data.mixing.policies", "dermsynth.data.loading.modules.ClassificationData"
    vit = {
        "trainer": trainer(best("val/auroc", "max"), part("callbacks.predictions.PredictionsWriter")),
        "model": part("dermsynth.classification.classifier.Classifier", model=tiny, optimizer=optimizer),
        "data": part(classification, **data, mix=part(f"{mixing}.RealOnly")),
    }
    hybrid = {**vit, "data": part(classification, **data, mix=part(f"{mixing}.Ratio", ratio=0.5))}
    prior = part(f"{mixing}.PriorPreservation")
    model = "dermsynth.diffusion.dreambooth.DreamBooth"
    made = [part("callbacks.image_set_writer.ImageSetWriter"), part("seen.Seen")]
    return {
        "dreambooth": {
            "trainer": trainer(best("val/loss", "min")),
            "model": part(model, base=base, optimizer=optimizer, sampling={"steps": 2, "guidance_scale": 1.0}),
            "data": part("dermsynth.data.loading.modules.DreamBoothData", **data, synthetic=["sets/prior"], mix=prior),
        },
        "generate": {
            "trainer": {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "callbacks": made},
            "model": part(model, base=base, sampling={"steps": 2, "guidance_scale": 1.0}),
            "data": part("dermsynth.data.loading.generation.GenerationData", classes=CLASSES, count=2, batch_size=2),
        },
        "baseline": vit,
        "hybrid": hybrid,
    }
