"""What TensorBoard shows of a run, read back from its event files."""

import datetime

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dermsynth.cli import main
from dermsynth.run.hyperparameters import hyperparameters
from tests.builders import CLASSES, make_set

NETWORK = (
    "{model_type: vit, image_size: 16, patch_size: 8, hidden_size: 8, num_hidden_layers: 1, "
    "num_attention_heads: 1, intermediate_size: 8}"
)


def test_a_value_of_any_type_is_shown_as_text():
    """As YAML has dates, which a user's own class may take."""
    day = datetime.date(2026, 1, 31)
    assert hyperparameters({"data": {"real": day, "classes": ["NV", 3]}}) == {
        "data.real": "2026-01-31",
        "data.classes": "NV, 3",
    }


def test_a_run_shows_its_hyperparameters_and_the_test_at_the_step_of_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    words = ["fit", "--run", run, "--model", "Classifier", "--model.model", NETWORK, "--data", "ClassificationData"]
    words += ["--data.real", make_set(tmp_path / "set"), "--data.classes", f"[{', '.join(CLASSES)}]", "--data.size", 16]
    words += ["--data.batch_size", 4, "--trainer.max_steps", 4, "--trainer.accelerator", "cpu"]
    words += ["--trainer.val_check_interval", 2, "--trainer.check_val_every_n_epoch", "null"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", 1, "--seed_everything", 3]
    words += ["--model.optimizer", "AdamW", "--model.optimizer.lr", 0.002, "--trainer.precision", "32-true"]
    monitors = "lightning.pytorch.callbacks.LearningRateMonitor"
    pictures = "callbacks.classifier_pictures.ClassifierPictures"
    words += ["--trainer.callbacks", f"[{{class_path: {monitors}}}, {{class_path: {pictures}}}]"]
    assert main([str(word) for word in words]) == 0
    last = str(run / "checkpoints/last.ckpt")
    assert main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", last]) == 0
    events = EventAccumulator(str(run)).Reload()
    # The group and its parts: which weights a learning rate is that of.
    scalars = events.Tags()["scalars"]
    assert {tag for tag in scalars if tag.startswith("lr-")} == {"lr-AdamW/weights", "lr-AdamW/no_decay"}
    # Lightning counts the step at whose end is validated as one less, and so must the test.
    assert [e.step for e in events.Scalars("test/accuracy")] == [events.Scalars("val/accuracy")[-1].step] == [3]
    assert [e.step for e in events.Images("test/roc")] == [4]
    assert "hp_metric" not in scalars
    # Without an entry on the experiment TensorBoard takes every scalar of the run for one of its metrics.
    tags = events.SummaryMetadata("_hparams_/session_start_info"), events.SummaryMetadata("_hparams_/session_end_info")
    assert "_hparams_/experiment" not in events.summary_metadata
    start, end = (HParamsPluginData.FromString(tag.plugin_data.content) for tag in tags)
    values = start.session_start_info.hparams
    assert end.session_end_info.status == STATUS_SUCCESS
    assert values["model"].string_value == "Classifier"
    assert values["model.optimizer"].string_value == "AdamW"
    assert values["data.classes"].string_value == ", ".join(CLASSES)
    numbers = {"model.optimizer.lr": 0.002, "seed_everything": 3, "trainer.max_steps": 4, "data.batch_size": 4}
    assert {key: values[key].number_value for key in numbers} == numbers
    assert "model.optimizer.lr: 0.002" in (run / "hparams.yaml").read_text(encoding="utf-8")
