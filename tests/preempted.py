"""Trainings of two processes that are told to stop at random moments, and go on.

    python -m tests.preempted --trials 100

Each trial trains a small ViT with `python -m dermsynth fit`'s own code on two ranks, with a loader process each or
without, and sends signals to one of them or both, once or twice, at a random moment. The same command is given again,
and mostly stopped again, until the training is complete. Counted are
trials without a hang, without a lost step, with a status other than 0 for what was not complete, and with the weights,
the best checkpoint and the metrics of the run that nobody disturbed.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from dermsynth.run_folder import FINISHED, last_checkpoint
from tests.builders import CLASSES, make_set
from tests.processes import Ranks

RANKS = 2
HANGS = 60  # seconds
ATTEMPTS = 4  # the last of which nobody disturbs
RECIPE = """\
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  max_epochs: -1
  max_steps: 24
  val_check_interval: 7
  check_val_every_n_epoch: null
  accumulate_grad_batches: 2
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks:
    - class_path: tests.preempted.Diary
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: best, monitor: val/auroc, mode: max, enable_version_counter: false}
    - class_path: callbacks.preemption.Preemption
model:
  class_path: dermsynth.classification.classifier.Classifier
  init_args:
    model:
      model_type: vit
      image_size: 16
      patch_size: 8
      hidden_size: 16
      num_hidden_layers: 1
      num_attention_heads: 2
      intermediate_size: 32
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-2}}
    lr_scheduler: {class_path: dermsynth.schedules.WarmupCosine, init_args: {warmup_steps: 4, total_steps: 24}}
data:
  class_path: dermsynth.data.modules.ClassificationData
  init_args: {classes: [NV, MEL, SK], size: 16, batch_size: 2}
"""


class Diary(Callback):
    """Writes down what a rank has done, and takes its time."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._file = Path(trainer.default_root_dir) / f"diary-{trainer.global_rank}"
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._write("listens")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        time.sleep(0.01)
        self._write(str(trainer.global_step))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        time.sleep(0.01)

    def _write(self, word: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{word}\n")


def start(folder: Path, workers: int = 0) -> Ranks:
    """The two ranks of one `fit`."""
    (folder / "recipe.yaml").write_text(RECIPE)
    flags = ["--data.real", "../real", "--data.num_workers", str(workers)]
    return Ranks(["fit", "--config", "recipe.yaml", "--run", "run", *flags], RANKS, folder)


def diary(folder: Path, rank: int) -> list[str]:
    """What a rank has written down."""
    file = folder / "run" / f"diary-{rank}"
    return file.read_text().split() if file.is_file() else []


def send(folder: Path, ranks: Ranks, attempt: int, luck: random.Random) -> str:
    """Signals to one rank or both, once or twice, at a random moment after both listen; what was sent."""
    while any(diary(folder, rank).count("listens") < attempt for rank in range(RANKS)):
        time.sleep(0.005)
    time.sleep(luck.uniform(0, 1.5))
    chosen = luck.choice([[0], [1], [0, 1]])
    kinds = luck.choices([signal.SIGUSR1, signal.SIGTERM], k=2)[: luck.choice([1, 2])]
    if luck.random() < 0.2:
        kinds = [signal.SIGINT]  # a second one stops at once, as it should
    for kind in kinds:
        for rank in chosen:
            ranks.send(rank, kind)
        time.sleep(luck.uniform(0, 0.1))
    return f"{' and '.join(k.name for k in kinds)} to {'both' if len(chosen) == RANKS else f'rank {chosen[0]}'}"


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same: weights, optimizer and the best checkpoint's weights."""
    last = torch.load(last_checkpoint(run), weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    moments = last["optimizer_states"][0]["state"]
    return {
        **{f"last.{name}": value for name, value in last["state_dict"].items()},
        **{f"best.{name}": value for name, value in best["state_dict"].items()},
        **{f"moment.{n}.{name}": value for n, kept in moments.items() for name, value in kept.items()},
        "step": torch.tensor([last["global_step"], best["global_step"]]),
    }


def trial(folder: Path, luck: random.Random, wanted: dict[str, Any]) -> tuple[list[str], list[str]]:
    """One training that is stopped and goes on; what was sent, and what went wrong."""
    folder.mkdir()
    sent, wrong, complete, workers = [], [], False, luck.choice([0, 1])
    for attempt in range(1, ATTEMPTS + 1):
        ranks = start(folder, workers)
        if disturbed := attempt == 1 or (attempt < ATTEMPTS and luck.random() < 0.5):
            sent.append(send(folder, ranks, attempt, luck))
        statuses = ranks.statuses(HANGS)
        if statuses is None:
            return sent, [f"attempt {attempt}: a rank hung"]
        complete = (folder / "run" / FINISHED).is_file()
        if any((status == 0) != complete for status in statuses) or not (complete or disturbed):
            wrong.append(f"attempt {attempt}: statuses {statuses}, {'complete' if complete else 'not complete'}")
        done = max((int(word) for rank in range(RANKS) for word in diary(folder, rank) if word.isdigit()), default=0)
        saved = last_checkpoint(folder / "run")
        kept = torch.load(saved, weights_only=True)["global_step"] if saved.is_file() else 0
        if kept != done:
            wrong.append(f"attempt {attempt}: {done} steps were done and {kept} kept")
        if complete:
            break
    if complete:
        found = outcome(folder / "run")
        if found.keys() != wanted.keys() or not all(torch.equal(found[name], wanted[name]) for name in wanted):
            wrong.append("the weights are others than those of the undisturbed run")
    else:
        wrong.append("it never ended")
    return sent, wrong


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """So many trials; what went wrong, one line each. The counts are printed."""
    make_set(folder / "real", per_class=dict.fromkeys(CLASSES, 16))
    (folder / "alone").mkdir()
    alone = start(folder / "alone")
    assert alone.statuses() == [0] * RANKS, alone.log(0)
    wanted = outcome(folder / "alone" / "run")
    luck, counts, failed = random.Random(seed), Counter[str](), []
    for number in range(trials):
        sent, wrong = trial(folder / f"trial-{number}", luck, wanted)
        counts.update(sent)
        failed += [f"trial {number}, {', then '.join(sent)}: {what}" for what in wrong]
    for sent, count in sorted(counts.items()):
        print(f"{count:4} {sent}")
    print(f"{trials} trials, {len(failed)} went wrong", flush=True)
    return failed


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failed = run(arguments.trials, arguments.seed, arguments.keep or Path(folder))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
