"""The classifier as a LightningModule."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import dermsynth.run.lean  # noqa: F401

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import MeanMetric

from dermsynth.classification import vit
from dermsynth.classification.metrics import ClassifierMetrics, undefined
from dermsynth.contracts import Batch, CountedTraining, CountedValidation, ExternalData, Outcomes
from dermsynth.errors import InputError
from dermsynth.evaluation.metrics import METRICS
from dermsynth.provenance import Provenance
from dermsynth.run.checkpoint_facts import CheckpointFacts, check_kind
from dermsynth.run.checkpoints import (
    Best,
    Reloadable,
    ScheduleCallable,
    check_weights,
    datamodule_of,
    optimizer_config,
    provenance_of,
)
from dermsynth.run.ranks import mean_if_logged, mean_over_ranks
from dermsynth.run.seams import attached_trainer

KIND = "classifier"
_LARGEST_IMAGE = 8192
PREPROCESSOR = "preprocessor_config.json"


def balanced_weights(counts: Sequence[float]) -> list[float]:
    """Loss weights n / (C · n_c) that give every class the same say (King & Zeng 2001).

    Args:
        counts: training images of each of the C classes in an epoch, on average; all above 0.
    """
    return [sum(counts) / (len(counts) * count) for count in counts]


class Classifier(Reloadable):
    """A vision transformer fine-tuned, or trained from random weights, on labelled images.

    Args:
        classes: names in the order of the labels, at least two; with two, the second is the positive one.
        model: hub id or folder of a transformers image-classification model with safetensors weights, or a
            mapping with `model_type` and configuration fields for random weights.
        image_size: side of the square input in pixels; None takes the network's own. Position embeddings of a
            pretrained network are interpolated.
        class_weights: `balanced` for n / (C · n_c) of the training mix, one positive number per class, or None.
        label_smoothing: part of the target spread over all classes, in `[0, 1)`.
        optimizer: makes the optimizer of parameter groups; biases, norms, tokens and position embeddings are
            exempt from its weight decay.
        lr_scheduler: makes the optimizer's schedule, stepped after every optimizer step.

    Raises:
        InputError: too few classes, weights that do not fit them, or a model that cannot be loaded or built.
    """

    class_weight: Tensor

    best: ClassVar = Best("val/auroc", "max")

    def __init__(
        self,
        classes: list[str],
        model: str | dict[str, Any] = "google/vit-base-patch16-224-in21k",
        image_size: int | None = None,
        class_weights: Literal["balanced"] | list[float] | None = "balanced",
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: ScheduleCallable | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise InputError(f"classes: {classes}; a classifier needs at least two.")
        if image_size is not None and not 1 <= image_size <= _LARGEST_IMAGE:
            raise InputError(f"model.image_size: {image_size} must be from 1 to {_LARGEST_IMAGE}.")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing: {label_smoothing}; expected a number in [0, 1).")
        self.classes = list(classes)
        self.balance = class_weights == "balanced"
        weights = class_weights if isinstance(class_weights, list) else [1.0] * len(classes)
        if len(weights) != len(classes) or not all(0 < weight < math.inf for weight in weights):
            raise InputError(f"class_weights: {weights}; expected {len(classes)} positive numbers, one per class.")
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.model = vit.build(model, classes, image_size)
        self.register_buffer("class_weight", torch.tensor(weights, dtype=torch.float32))
        #: What the data said of themselves that the weights were fitted on; carried from checkpoint to checkpoint.
        self.provenance: Provenance = {}
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_metrics, self.test_metrics = ClassifierMetrics(classes), ClassifierMetrics(classes)

    def setup(self, stage: str) -> None:
        """Take balanced class weights from the training mix; later stages find them in the checkpoint."""
        if stage != "fit" or not self.balance:
            return
        data = datamodule_of(self.trainer)
        if not isinstance(data, CountedTraining):
            raise InputError(
                "class_weights: balanced needs a data module with class_counts. Use "
                "dermsynth.data.loading.modules.ClassificationData, or give one number per class."
            )
        counts = data.class_counts
        if len(counts) != len(self.classes) or min(counts) <= 0:
            raise InputError(
                f"class_weights: balanced needs training images of every class of {self.classes}; "
                f"the training mix holds {list(counts)}."
            )
        self.class_weight.copy_(torch.tensor(balanced_weights(counts)))

    def on_fit_start(self) -> None:
        """Refuse to resume on other data; note which data the weights are fitted on; say what will be undefined."""
        self._check_train_split()
        self.provenance = provenance_of(self.trainer) or self.provenance
        self._check_direction()
        self._report_absent()

    def on_validation_start(self) -> None:
        """Refuse data whose validation images the weights may have been fitted on."""
        self._check_train_split()

    def on_test_start(self) -> None:
        """Refuse data whose test images the weights may have been fitted on."""
        self._check_train_split()

    def on_predict_start(self) -> None:
        """Refuse data whose images the weights may have been fitted on."""
        self._check_train_split()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits `[B, C]` of images `[B, 3, H, W]` in [-1, 1]."""
        size = vit.image_size(self.model.config)
        if size is not None and pixel_values.shape[-2:] != (size, size):
            raise InputError(
                f"data.size: images are {pixel_values.shape[-1]} x {pixel_values.shape[-2]} pixels, but the "
                f"network takes {size} x {size}. Set model.init_args.image_size to data.init_args.size."
            )
        return self.model(pixel_values=pixel_values).logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted cross-entropy, normalised as torch does by the sum of the weights, here of all ranks' batches."""
        _, losses, weights = self._shared_step(batch)
        # The mean, as gradients are averaged: so a batch trains the same however many ranks share it.
        loss = losses.sum() / mean_over_ranks(weights.sum())
        self.log("train/loss", mean_if_logged(loss.detach(), attached_trainer(self)), batch_size=len(weights))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Outcomes:
        """Update loss and metrics of validation; return what callbacks consume."""
        return self._evaluate(batch, "val", self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Outcomes:
        """Update loss and metrics of the test; return what callbacks consume."""
        return self._evaluate(batch, "test", self.test_loss, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all validation images."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all test images."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Outcomes:
        """The same outputs as in the test, without metrics."""
        return self._outputs(batch, self(batch["pixel_values"]))

    def configure_optimizers(self) -> Any:
        """The optimizer on two parameter groups, and its schedule per step."""
        return optimizer_config(self, self.optimizer, vit.parameter_groups(self.model), self.lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the file is: its kind, the classes, the network's configuration and the data it was fitted on."""
        network = self.model.config.to_dict()
        CheckpointFacts(KIND, self.provenance, classes=self.classes, network=network).into(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind, other classes or another network, before any weight is copied.

        Raises:
            InputError: naming what the file holds and what was expected.
        """
        facts = check_kind(checkpoint, KIND, classes=self.classes)
        check_weights(checkpoint.get("state_dict", {}), self.state_dict())
        self.provenance = facts.provenance

    def export(self, out: Path, format: str, name: str = "") -> None:
        """Write the network as a transformers folder with safetensors weights (`transformers`).

        Args:
            out: the folder to write into.
            format: `transformers`, the only one.
            name: of the run; the folder's files have names of their own.
        """
        self.model.save_pretrained(out, safe_serialization=True)
        text = json.dumps(_preprocessor(self.model.config), indent=2)
        (out / PREPROCESSOR).write_text(f"{text}\n", encoding="utf-8")

    def _check_train_split(self) -> None:
        data = datamodule_of(self.trainer)
        if isinstance(data, ExternalData) and data.external:
            return
        fitted, ours = (p.get("train_split_sha256", "") for p in (self.provenance, provenance_of(self.trainer)))
        if fitted and ours and fitted != ours:
            raise InputError(
                f"the checkpoint was fitted on another train split ({fitted[:12]}) than that of the data "
                f"({ours[:12]}), so it may have seen the images it is tested on. Give it the image set that it was "
                "fitted on; or, if this is an external test set of other patients, name it in data.allow_foreign."
            )

    def _check_direction(self) -> None:
        """Refuse a callback that would keep the worst weights, as Lightning's own mode is `min` for any metric."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if not isinstance(callback, ModelCheckpoint | EarlyStopping):
                continue
            metric = METRICS.get((callback.monitor or "").removeprefix("val/").partition("/")[0])
            if metric and callback.mode != (mode := "max" if metric.higher_is_better else "min"):
                raise InputError(
                    f"trainer.callbacks: {type(callback).__name__} monitors {callback.monitor} with mode "
                    f"{callback.mode}, which takes the worst for the best. Set mode: {mode}."
                )

    def _report_absent(self) -> None:
        """Say which classes the validation images lack, and whether the best checkpoint could not be told by them."""
        data = datamodule_of(self.trainer)
        if not isinstance(data, CountedValidation) or all(data.val_counts):
            return
        counts = data.val_counts
        names = {f"val/{name}" for name in undefined(self.classes, counts)}
        absent = ", ".join(name for name, count in zip(self.classes, counts, strict=True) if not count)
        rank_zero_info(f"val: no image of {absent}; NaN, and left out of means: {', '.join(sorted(names))}")
        for callback in self.trainer.callbacks:
            if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.monitor in names:
                rank_zero_info(
                    f"warning: {type(callback).__name__} monitors {callback.monitor}, which will be NaN at every "
                    "validation, so that it cannot tell the best checkpoint. Monitor val/loss, or split the set again."
                )

    def _shared_step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[B, C]`, weighted losses `[B]` and the weights `[B]` that normalise them."""
        # In float32 whatever the precision: `bf16-true` and `64-true` make the weights another type, too.
        logits, class_weight = self(batch["pixel_values"]).float(), self.class_weight.float()
        losses = F.cross_entropy(
            logits, batch["label"], class_weight, reduction="none", label_smoothing=self.label_smoothing
        )
        return logits, losses, class_weight[batch["label"]]

    def _evaluate(self, batch: Batch, stage: str, mean_loss: MeanMetric, measured: ClassifierMetrics) -> Outcomes:
        logits, losses, weights = self._shared_step(batch)
        outputs = self._outputs(batch, logits)
        mean_loss.update(losses / weights, weights)
        measured.update(outputs["probabilities"], outputs["label"])
        self.log(f"{stage}/loss", mean_loss, batch_size=len(weights))
        return outputs

    def _log_metrics(self, stage: str, measured: ClassifierMetrics) -> None:
        # Not handed to Lightning as a metric: it logs those of one number alone.
        # They are the same on every rank already; `sync_dist` keeps Lightning from warning of each.
        values = measured.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        measured.reset()

    def _outputs(self, batch: Batch, logits: Tensor) -> Outcomes:
        return {
            "probabilities": logits.float().softmax(dim=1),
            "label": batch["label"],
            "image_id": list(batch["image_id"]),
            "group": list(batch["group"]),
        }


def _preprocessor(config: Any) -> dict[str, Any]:
    """How transformers makes of an image what the network saw in the test: short side, centre, [-1, 1]."""
    size = vit.image_size(config)
    square = {} if size is None else {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": size is not None,
        "resample": 3,  # bicubic
        "do_center_crop": size is not None,
        **square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
