import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.metrics import roc_auc_score, roc_curve
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.classifier_pictures import ClassifierPictures, confusion_figure, roc_figure

CLASSES = ["NV", "MEL", "SK"]


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 90)
    logits = rng.normal(size=(90, 3)) + np.eye(3)[label]
    return label, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_confusion_cells_hold_counts_and_row_percent():
    label = np.array([0, 0, 0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    found = texts(confusion_figure(label, probabilities, CLASSES, "val"))
    assert found[0::2] == ["3", "1", "0", "0", "1", "1", "0", "0", "0"]
    assert found[1::2] == ["75.0 %", "25.0 %", "0.0 %", "0.0 %", "50.0 %", "50.0 %", "–", "–", "–"]


def test_roc_is_that_of_each_class_and_named_with_its_area(outcomes):
    label, probabilities = outcomes
    axes = roc_figure(label, probabilities, CLASSES, "val").axes[0]
    for c, line in enumerate(axes.lines[1:]):  # the first is the diagonal
        expected = roc_curve(label == c, probabilities[:, c], drop_intermediate=False)[:2]
        np.testing.assert_allclose(line.get_xydata().T, expected, atol=1e-6)
    legend = [text.get_text() for text in axes.get_legend().texts]
    assert legend == [
        f"{name}  {roc_auc_score(label == c, probabilities[:, c]):.3f} (n = {np.sum(label == c)})"
        for c, name in enumerate(CLASSES)
    ]


def test_roc_of_two_classes_is_that_of_the_second():
    label = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    legend = roc_figure(label, probabilities, ["benign", "malignant"], "val").axes[0].get_legend()
    assert [text.get_text() for text in legend.texts] == ["malignant  0.750 (n = 2)"]


def test_roc_of_a_class_without_images_has_no_curve():
    label, probabilities = np.array([0, 1]), np.array([[0.8, 0.2, 0], [0.2, 0.8, 0]])
    legend = roc_figure(label, probabilities, CLASSES, "val").axes[0].get_legend()
    assert [text.get_text() for text in legend.texts][2] == "SK  no curve (n = 0)"


class Remembered(L.LightningModule):
    """Gives back the outcomes in the batch, and trains one number."""

    classes = CLASSES

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.number**2

    def validation_step(self, batch, batch_idx):
        return {
            "probabilities": torch.tensor([row[1] for row in batch]),
            "label": torch.tensor([row[0] for row in batch]),
            "image_id": [row[2] for row in batch],
            "group": [row[2] for row in batch],
        }

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_tensorboard_gets_both_pictures_after_each_validation_and_the_test(tmp_path, outcomes):
    rows = [(y, list(p), f"image{i}") for i, (y, p) in enumerate(zip(*outcomes, strict=True))]
    loader = torch.utils.data.DataLoader(rows, batch_size=30, collate_fn=list)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        default_root_dir=tmp_path,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        callbacks=[ClassifierPictures()],
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    model = Remembered()
    trainer.fit(model, loader, loader)
    trainer.test(model, loader, verbose=False)
    trainer.logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {tag: [e.step for e in events.Images(tag)] for tag in events.Tags()["images"]} == {
        "val/confusion": [3, 6],
        "val/roc": [3, 6],
        "test/confusion": [6],
        "test/roc": [6],
    }
    assert min(events.Images("val/roc")[0].width, events.Images("val/roc")[0].height) > 500
