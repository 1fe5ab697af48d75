"""Write `predictions.csv`: every test image once, with its label and a probability for each class."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from dermsynth.contracts import Classed, Outcomes
from dermsynth.errors import InputError
from dermsynth.files import write_atomically

FILE_NAME = "predictions.csv"


class Prediction(NamedTuple):
    """One image's outcome; `probabilities` has one number per class."""

    image_id: str
    group: str
    label: int
    probabilities: tuple[float, ...]


class Collector:
    """Gathers the outputs of evaluation steps over batches and ranks."""

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def add(self, outputs: Outcomes) -> None:
        """Keep what a validation or test step of the classifier returned."""
        self._rows += map(
            Prediction,
            outputs["image_id"],
            outputs["group"],
            outputs["label"].tolist(),
            map(tuple, outputs["probabilities"].tolist()),
        )

    def gather(self) -> list[Prediction]:
        """The rows of all ranks, each image once, sorted by id. Every rank must call it; it empties this.

        A sampler may pad the ranks to equal length, so an image may come twice, but then with one outcome.

        Raises:
            InputError: one id came with different labels or probabilities.
        """
        rows, self._rows = self._rows, []
        if dist.is_available() and dist.is_initialized():
            shards: list[list[Prediction]] = [[]] * dist.get_world_size()
            dist.all_gather_object(shards, rows)
            rows = [row for shard in shards for row in shard]
        unique: dict[str, Prediction] = {}
        for row in rows:
            first = unique.setdefault(row.image_id, row)
            # A loose tolerance: the same image in another batch differs by rounding, in bf16 by up to 1e-2.
            same = first[:3] == row[:3] and np.allclose(
                first.probabilities, row.probabilities, atol=2e-2, equal_nan=True
            )
            if not same:
                raise InputError(
                    f"image_id {row.image_id!r} came twice with different outcomes: label {first.label}, "
                    f"{first.probabilities} and label {row.label}, {row.probabilities}. Ids must be "
                    "unique over all sets of one run."
                )
        return [unique[image_id] for image_id in sorted(unique)]


class PredictionsWriter(Callback):
    """At the end of `test`, rank 0 writes `predictions.csv` into the run folder (`trainer.default_root_dir`).

    Columns: image_id, group, split, label (class name), then `p_<class>` for each class in order. The file is
    complete or absent; a debugging run (`fast_dev_run`) and a test of some batches (`limit_test_batches`) write none.
    """

    def __init__(self) -> None:
        self._collector = Collector()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what a test that failed midway left."""
        self._collector = Collector()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's outcomes."""
        self._collector.add(outputs)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather on every rank, write on rank 0."""
        rows = self._collector.gather()
        assert isinstance(pl_module, Classed)
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / FILE_NAME
        if _is_partial(trainer):
            print(f"{path} is not written: the test was limited to a part of the images.", flush=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_csv(rows, pl_module.classes))


def to_csv(rows: list[Prediction], classes: list[str], split: str = "test") -> str:
    """The text of `predictions.csv`; probabilities are written with as many digits as give float32 back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "group", "split", "label", *(f"p_{name}" for name in classes)])
    for row in rows:
        numbers = (f"{p:.9g}" for p in row.probabilities)
        writer.writerow([row.image_id, row.group, split, classes[row.label], *numbers])
    return text.getvalue()


def _is_partial(trainer: L.Trainer) -> bool:
    """Whether the test was limited to fewer batches than its loaders have, or was a debugging run."""
    debugging: bool | int = trainer.fast_dev_run  # type: ignore[attr-defined]
    given: Any = trainer.test_dataloaders
    loaders = given if isinstance(given, list | tuple) else [given]
    taken = trainer.num_test_batches
    return bool(debugging) or any(n < len(loader) for n, loader in zip(taken, loaders, strict=True))
