"""A study of models so small that a step takes less than a second, and ways to run it."""

import os
import signal
import sys
import time
from pathlib import Path

import yaml

from dermsynth.cli import main
from dermsynth.study import declaration
from dermsynth.study.checks import check
from dermsynth.study.local import Runner
from dermsynth.study.lock import locked
from dermsynth.study.overview import Overview
from dermsynth.study.plan import plan
from tests.builders import CLASSES, make_set

TRAINER = {
    "accelerator": "cpu",
    "precision": "32-true",
    "devices": 1,
    "max_steps": 4,
    "val_check_interval": 2,
    "check_val_every_n_epoch": None,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}
VIT = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SCHEDULE = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 1}}
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}


# What is killed then goes on from any step.
LAST = {"class_path": "LastCheckpoint", "init_args": {"every_n_train_steps": 1}}


def write_yaml(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def recipes(folder, base):
    """vit.yaml, dreambooth.yaml, generate.yaml and arms/."""
    vit = {
        "trainer": {**TRAINER, "callbacks": [LAST, {"class_path": "PredictionsWriter"}]},
        "model": {
            "class_path": "Classifier",
            "init_args": {"model": VIT, "optimizer": ADAMW, "lr_scheduler": SCHEDULE},
        },
        "data": {
            "class_path": "ClassificationData",
            "init_args": {"real": "nowhere", "classes": CLASSES, "size": 16, "batch_size": 4},
        },
    }
    dreambooth = {
        "trainer": {**TRAINER, "callbacks": [LAST]},
        "model": {
            "class_path": "DreamBooth",
            "init_args": {"base": str(base), "sampling": {"steps": 2, "guidance_scale": 1.0}, "optimizer": ADAMW},
        },
        "data": {
            "class_path": "DreamBoothData",
            "init_args": {"real": "nowhere", "classes": CLASSES, "size": 16, "batch_size": 2},
        },
    }
    generate = {
        "trainer": {
            **{key: TRAINER[key] for key in ("accelerator", "devices", "logger", "enable_progress_bar")},
            "callbacks": [{"class_path": "ImageSetWriter"}],
        },
        "model": {
            "class_path": "DreamBooth",
            "init_args": {"sampling": {"steps": 2, "guidance_scale": 1.0}},
        },
        "data": {
            "class_path": "GenerationData",
            "init_args": {"classes": CLASSES, "count": 2, "batch_size": 6, "prompt": "an image of {token} {lesion}"},
        },
    }
    for name, content in (("vit", vit), ("dreambooth", dreambooth), ("generate", generate)):
        write_yaml(folder / f"{name}.yaml", content)
    ratio = {"class_path": "Ratio", "init_args": {"ratio": 0.5}}
    mixes = {
        "real": {"class_path": "RealOnly"},
        "hybrid": ratio,
        "repeated": {"class_path": "OversampledReal", "init_args": {"like": ratio}},
    }
    for name, mix in mixes.items():
        write_yaml(folder / "arms" / f"{name}.yaml", {"data": {"init_args": {"mix": mix}}})


def content(folder, **changes):
    """What a study file with all parts says."""
    arms = {name: str(folder / "arms" / f"{name}.yaml") for name in ("real", "repeated", "hybrid")}
    return {
        "data": {"set": str(folder / "real"), "classes": list(CLASSES)},
        "generator": {
            "recipe": str(folder / "dreambooth.yaml"),
            "generate": str(folder / "generate.yaml"),
            "count": 2,
            "seeds": [0],
        },
        "classifier": {"recipe": str(folder / "vit.yaml"), "seeds": [0]},
        "arms": arms,
        **changes,
    }


def make_study(folder, base, **changes):
    """A folder with a real set, an external one, recipes and study.yaml; the file."""
    make_set(folder / "real")
    make_set(folder / "clinic", dict.fromkeys(CLASSES, 4))
    recipes(folder, base)
    data = {**content(folder)["data"], "external": {"elsewhere": str(folder / "clinic")}}
    return write_yaml(folder / "study.yaml", content(folder, data=data, **changes))


def change(file, key, value):
    """Another value at a dotted key of a YAML file."""
    content = yaml.safe_load(file.read_text())
    *parents, last = key.split(".")
    inner = content
    for name in parents:
        inner = inner[name]
    inner[last] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def checked(file, out):
    """The steps of a study, each checked as `study` does before anything is made."""
    steps = plan(declaration.read(file), out)
    for step in steps:
        check(step, file)
    return steps


def forked(words, log, environment):
    """Start a command in a fork of this process, which has imported everything."""
    pid = os.fork()
    if pid:
        return Forked(pid)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(environment)
        sys.argv = ["dermsynth", *words]
        status = main(list(words))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


class Forked:
    """Such a process, as `local.Process` wants it."""

    def __init__(self, pid):
        self.pid, self.status = pid, None

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def run(file, out, jobs=1, launch=forked):
    """What `study FILE --out OUT` does, its steps forked from this process."""
    steps = plan(declaration.read(file), out)
    with locked(out):
        Runner(steps, out, jobs, (), Overview(steps, jobs), launch).run()


def work(rank, file, out, log):
    """Of a process that is a study, in a group of its own."""
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    run(Path(file), Path(out), jobs=2)


def wait_for_the_lock(out, seconds=60):
    """Until the last process of a killed study has gone."""
    from dermsynth.errors import InputError

    until = time.monotonic() + seconds
    while True:
        try:
            with locked(out):
                return
        except InputError:
            assert time.monotonic() < until
            time.sleep(0.01)
