"""Training runs of seconds, by the command: a generator and a classifier."""

from dermsynth.cli import main
from tests.builders import CLASSES

TWO_CLASSES = ["NV", "MEL"]
NETWORK = "{model_type: vit, image_size: 16, patch_size: 8, hidden_size: 16, num_hidden_layers: 1, "
NETWORK += "num_attention_heads: 2, intermediate_size: 16}"


def generator(folder, base, real, steps, lr):
    """The last checkpoint of a DreamBooth run without augmentation, which shows every image in each step."""
    words = ["--model", "DreamBooth", "--model.base", base, "--data", "DreamBoothData", "--data.batch_size", 10]
    words += ["--data.augmentation", "none", "--trainer.limit_val_batches", 0, "--data.classes", _listed(TWO_CLASSES)]
    return _fit(folder, real, steps, lr, words) / "checkpoints" / "last.ckpt"


def classifier(folder, real, *more):
    """The folder of a classifier's run."""
    words = ["--model", "Classifier", "--model.model", NETWORK, "--data", "ClassificationData", "--data.batch_size", 8]
    return _fit(folder, real, 60, 0.01, [*words, "--data.classes", _listed(CLASSES), *more])


def _listed(names):
    return f"[{', '.join(names)}]"


def _fit(folder, real, steps, lr, words):
    common = [
        "--run",
        folder,
        "--trainer.accelerator",
        "cpu",
        "--trainer.logger",
        "false",
        "--trainer.max_steps",
        steps,
    ]
    common += ["--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false", "--seed_everything", 0]
    common += [*words, "--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", lr]
    assert main(["fit", *map(str, [*common, "--data.real", real, "--data.size", 16])]) == 0
    return folder
