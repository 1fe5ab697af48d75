"""Trainings of two processes that are told to stop at random moments, and are resumed.

    python -m tests.preempted --trials 50

Each trial trains a small ViT with `python -m dermsynth fit`'s own code on two ranks, with a loader process each or
without, and sends signals to one of them or both, once or twice, at a random moment, sometimes while they start: in 50
trials every order of signals goes to either rank and to both at least once. A rank
whose status is not 0 takes the other with it, as srun and torchrun have it. The same command is given again, and mostly
stopped again, until the training is complete.

A trial goes wrong if a rank hangs, a step is lost, or a status is not the one that it should be; or if in the end
weights, optimizer, schedule or the best checkpoint and its metric are not those of the run that nobody disturbed.
"""

import argparse
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from callbacks.preemption import INTERRUPTED, STOPPED
from dermsynth.run.folder import FINISHED, last_checkpoint
from tests.builders import CLASSES, make_set
from tests.interruptions import assert_equal
from tests.processes import Ranks

RANKS = 2
HANGS = 600  # seconds
ATTEMPTS = 4  # the last of which nobody disturbs
EARLY = 0.15  # of the signals
TOLD = [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]
LATE, STARTING, IN_ORDER = "were complete before", "ended while they started", "stopped in good order"
RECIPE = """\
trainer:
  accelerator: cpu
  precision: 32-true
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
      init_args: {filename: best, monitor: val/loss, mode: min, enable_version_counter: false}
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
    lr_scheduler: {class_path: dermsynth.run.schedules.WarmupCosine, init_args: {warmup_steps: 4, total_steps: 24}}
data:
  class_path: dermsynth.data.loading.modules.ClassificationData
  init_args: {classes: [NV, MEL, SK], size: 16, batch_size: 2}
"""


class Diary(Callback):
    """Writes down what a rank has done, and takes its time."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._file = Path(trainer.default_root_dir) / f"diary-{trainer.global_rank}"
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._write("listens")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        time.sleep(0.01)
        self._write(str(trainer.global_step))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        time.sleep(0.01)

    def _write(self, word: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{word}\n")


@dataclass
class Signals:
    """What is sent, and when."""

    kinds: list[signal.Signals]
    ranks: list[int]
    early: bool

    def __str__(self) -> str:
        to = "both" if len(self.ranks) == RANKS else f"rank {self.ranks[0]}"
        return f"{' and '.join(kind.name for kind in self.kinds)} to {to}{' at the start' if self.early else ''}"


def shuffled(luck: random.Random) -> Iterator[Signals]:
    """One or two signals to either rank or to both: all there are in random order, and again.

    Not two of Ctrl-C, which stop at once and save nothing, as they should.
    """
    kinds = [*itertools.product(TOLD), *itertools.product(TOLD, repeat=2)]
    kinds.remove((signal.SIGINT, signal.SIGINT))
    every = list(itertools.product(kinds, ([0], [1], [0, 1])))
    while True:
        for told, ranks in luck.sample(every, len(every)):
            yield Signals(list(told), ranks, luck.random() < EARLY)


def start(folder: Path, workers: int = 0) -> Ranks:
    """The two ranks of one `fit`, with new diaries."""
    (folder / "recipe.yaml").write_text(RECIPE)
    for rank in range(RANKS):
        (folder / "run" / f"diary-{rank}").unlink(missing_ok=True)
    flags = ["--data.real", "../real", "--data.num_workers", str(workers)]
    return Ranks(["fit", "--config", "recipe.yaml", "--run", "run", *flags], RANKS, folder)


def diary(folder: Path, rank: int) -> list[str]:
    """What a rank has written down in this attempt."""
    file = folder / "run" / f"diary-{rank}"
    return file.read_text().split() if file.is_file() else []


def both_listen(folder: Path) -> bool:
    """Whether both ranks are at their steps."""
    return all("listens" in diary(folder, rank) for rank in range(RANKS))


def wait(ranks: Ranks, true: Callable[[], bool]) -> None:
    """Until it is true, a rank has ended, or it takes too long."""
    until = time.monotonic() + HANGS
    while time.monotonic() < until and all(process.is_alive() for process in ranks.processes) and not true():
        time.sleep(0.005)


def send(signals: Signals, folder: Path, ranks: Ranks, starting: float, luck: random.Random) -> None:
    """At a random moment of the start, which takes so many seconds, or of the steps."""
    if signals.early:
        time.sleep(luck.uniform(0, starting))
    else:
        wait(ranks, lambda: both_listen(folder))
        time.sleep(luck.uniform(0, 1.5))
    for kind in signals.kinds:
        for rank in signals.ranks:
            ranks.send(rank, kind)
        time.sleep(luck.uniform(0, 0.1))


def statuses_of(ranks: Ranks) -> list[int] | None:
    """How the ranks ended; None if one hung."""
    wait(ranks, lambda: False)
    if any(process.exitcode for process in ranks.processes):
        for rank in range(RANKS):
            ranks.send(rank, signal.SIGTERM)
    return ranks.statuses(HANGS)


def verdict(signals: Signals | None, statuses: list[int], complete: bool, stepped: bool) -> str:
    """What became of an attempt; nothing for what should not be."""
    if complete:
        return LATE if set(statuses) == {0} else ""
    if signals is None:
        return ""
    if signals.early and not stepped:
        return STARTING if not {0, STOPPED} & set(statuses) else ""
    right = {INTERRUPTED if kind == signal.SIGINT else STOPPED for kind in signals.kinds}
    return IN_ORDER if len(set(statuses)) == 1 and set(statuses) <= right else ""


def steps_kept(folder: Path) -> int:
    """Of the last checkpoint."""
    saved = last_checkpoint(folder / "run")
    return torch.load(saved, weights_only=True)["global_step"] if saved.is_file() else 0


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same."""
    files = {"last": last_checkpoint(run), "best": run / "checkpoints" / "best.ckpt"}
    parts = ["global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks"]
    loaded = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    for checkpoint in loaded.values():
        for state in checkpoint["callbacks"].values():
            state.pop("current_score", None)  # of the last validation, which Lightning does not restore
    return {name: {part: checkpoint[part] for part in parts} for name, checkpoint in loaded.items()}


def trial(
    folder: Path, luck: random.Random, told: Iterator[Signals], wanted: dict[str, Any], starting: float
) -> tuple[list[Signals], list[str], list[str]]:
    """One training that is stopped and resumed: what was sent, what became of it, and what went wrong."""
    folder.mkdir()
    sent, ends, wrong, complete, workers = [], [], [], False, luck.choice([0, 1])
    for attempt in range(1, ATTEMPTS + 1):
        before, signals = steps_kept(folder), None
        ranks = start(folder, workers)
        if attempt == 1 or (attempt < ATTEMPTS and luck.random() < 0.5):
            signals = next(told)
            send(signals, folder, ranks, starting, luck)
            sent.append(signals)
        statuses = statuses_of(ranks)
        if statuses is None:
            return sent, ends, [*wrong, f"attempt {attempt}: a rank hung"]
        complete = (folder / "run" / FINISHED).is_file()
        words = [int(word) for rank in range(RANKS) for word in diary(folder, rank) if word.isdigit()]
        done, kept = max([before, *words]), steps_kept(folder)
        end = verdict(signals, statuses, complete, done > before)
        if not end:
            wrong.append(f"attempt {attempt}: statuses {statuses}, {'complete' if complete else 'not complete'}")
        elif signals:
            ends.append(end)
        if kept != done:
            wrong.append(f"attempt {attempt}: {done} steps were done and {kept} kept")
        if complete:
            break
    if complete:
        try:
            assert_equal(outcome(folder / "run"), wanted, "other than in the undisturbed run:")
        except AssertionError as difference:
            wrong.append(str(difference))
    else:
        wrong.append("it never ended")
    return sent, ends, wrong


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """So many trials; what went wrong, a line for each that did. The counts are printed."""
    make_set(folder / "real", per_class=dict.fromkeys(CLASSES, 16))
    (folder / "alone").mkdir()
    alone, began = start(folder / "alone"), time.monotonic()
    wait(alone, lambda: both_listen(folder / "alone"))
    starting = time.monotonic() - began
    assert alone.statuses() == [0] * RANKS, alone.log(0)
    wanted = outcome(folder / "alone" / "run")
    luck, kinds, verdicts, failed = random.Random(seed), Counter[str](), Counter[str](), []
    told = shuffled(luck)
    for number in range(trials):
        sent, ends, wrong = trial(folder / f"trial-{number}", luck, told, wanted, starting)
        kinds.update(map(str, sent))
        verdicts.update(ends)
        if wrong:
            failed.append(f"trial {number}, {', then '.join(map(str, sent))}: {'; '.join(wrong)}")
    for kind, count in sorted(kinds.items()):
        print(f"{count:4} {kind}")
    became = ", ".join(f"{verdicts[end]} {end}" for end in (IN_ORDER, STARTING, LATE))
    print(
        f"{trials} trials, {len(failed)} went wrong; of {kinds.total()} attempts that were told to stop {became}",
        flush=True,
    )
    return failed


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failed = run(arguments.trials, arguments.seed, arguments.keep or Path(folder))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
