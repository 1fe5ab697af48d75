"""Confusion matrix and ROC curves as TensorBoard pictures, after each validation and the test."""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchmetrics.functional.classification import binary_auroc, binary_roc, multiclass_confusion_matrix

from callbacks.predictions import Collector
from dermsynth.contracts import Classed

TITLES = {"val": "validation"}
INK, QUIET, RULE = "#22272e", "#6b7480", "#d5dae0"
# Okabe & Ito's colours for all kinds of colour vision, dark ones first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")


class ClassifierPictures(Callback):
    """Draws `val/confusion`, `val/roc`, `test/confusion` and `test/roc` for every TensorBoard logger.

    All ranks' images are gathered and each counts once. The sanity check before training draws nothing.
    """

    def __init__(self) -> None:
        self._collector = Collector()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from zero."""
        self._collector = Collector()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
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

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the validation images' outcomes."""
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the test images' outcomes."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, split: str) -> None:
        rows = self._collector.gather()
        if not trainer.is_global_zero or not rows:
            return
        label = np.array([row.label for row in rows])
        probabilities = np.array([row.probabilities for row in rows])
        assert isinstance(pl_module, Classed)
        classes = pl_module.classes
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                add = logger.experiment.add_figure
                step = trainer.global_step
                add(
                    f"{split}/confusion",
                    confusion_figure(label, probabilities, classes, split),
                    step,
                    close=False,
                )
                add(f"{split}/roc", roc_figure(label, probabilities, classes, split), step, close=False)


def confusion_figure(label: np.ndarray, probabilities: np.ndarray, classes: list[str], split: str) -> Figure:
    """Counts, with the percentage of the true class (the row) that also shades the cell.

    Args:
        label: int `[N]`.
        probabilities: `[N, C]`; the largest decides.
        classes: the C names.
        split: for the title.
    """
    size = len(classes)
    predicted = torch.from_numpy(probabilities.argmax(axis=1))
    counts = multiclass_confusion_matrix(predicted, torch.from_numpy(label), size).numpy()
    total = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, total, out=np.zeros(counts.shape), where=total > 0)
    side = 2.6 + 0.85 * size
    figure, axes = _canvas(side, side, f"Confusion matrix, {TITLES.get(split, split)} (n = {len(label):,})")
    axes.imshow(percent, cmap=colormaps["Blues"], vmin=0, vmax=115)
    for row in range(size):
        for column in range(size):
            color = "white" if percent[row, column] > 70 else INK
            axes.annotate(
                f"{counts[row, column]:,}",
                (column, row),
                (0, 1),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=color,
                fontsize=12,
                fontweight="bold",
            )
            share = f"{percent[row, column]:.1f} %" if total[row, 0] else "–"
            axes.annotate(
                share,
                (column, row),
                (0, -2),
                textcoords="offset points",
                ha="center",
                va="top",
                color=color,
                fontsize=9,
            )
    axes.set_xticks(range(size), classes)
    axes.set_yticks(range(size), [f"{name}\nn = {n:,}" for name, n in zip(classes, total[:, 0], strict=True)])
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("True")
    return figure


def roc_figure(label: np.ndarray, probabilities: np.ndarray, classes: list[str], split: str) -> Figure:
    """ROC curve of class 1 for two classes, else of each class against the rest, with its area.

    Args:
        label: int `[N]`.
        probabilities: `[N, C]`.
        classes: the C names.
        split: for the title.
    """
    figure, axes = _canvas(4.8, 5.0, f"ROC curves, {TITLES.get(split, split)} (n = {len(label):,})")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for index in [1] if len(classes) == 2 else range(len(classes)):
        positive = label == index
        color = COLORS[index % len(COLORS)]
        style = "-" if index < len(COLORS) else "--"
        if positive.all() or not positive.any():
            axes.plot([], [], style, color=color, label=f"{classes[index]}  no curve (n = {positive.sum():,})")
            continue
        outcome = torch.from_numpy(probabilities[:, index]), torch.from_numpy(positive).long()
        false_positive_rate, true_positive_rate, _ = binary_roc(*outcome)
        area = binary_auroc(*outcome)
        text = f"{classes[index]}  {area:.3f} (n = {positive.sum():,})"
        axes.plot(false_positive_rate, true_positive_rate, style, color=color, linewidth=1.8, label=text)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 – specificity")
    axes.set_ylabel("Sensitivity")
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title="Area under the curve",
        loc="lower right",
        fontsize=8.5,
        title_fontsize=8.5,
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
        alignment="left",
    )
    return figure


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """An empty figure in inches, unknown to pyplot, so that nothing stays open over a long training."""
    figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set(color=QUIET, fontsize=10)
    axes.yaxis.label.set(color=QUIET, fontsize=10)
    axes.spines[:].set_color(RULE)
    return figure, axes
