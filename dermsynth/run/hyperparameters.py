"""The few numbers and names by which runs are told apart in TensorBoard's HParams and in other loggers."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from dermsynth.run.config import leaves
from dermsynth.run.seams import write_summary

# In the words of flags; `fit.yaml` has all the others.
_SHOWN = (
    "seed_everything",
    "trainer.max_steps",
    "trainer.precision",
    "model",
    "model.base",
    "model.model",
    "model.lora.rank",
    "model.class_weights",
    "model.optimizer",
    "model.optimizer.lr",
    "model.optimizer.weight_decay",
    "data.real",
    "data.synthetic",
    "data.classes",
    "data.size",
    "data.batch_size",
    "data.augmentation",
    "data.mix",
    "data.mix.ratio",
    "data.mix.budget",
)


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of them, by flag; a class by its name, a list as text, and nothing where it is null.

    Args:
        config: as read from YAML.
    """
    said = {}
    for key, value in leaves(config).items():
        flag = key.replace(".init_args", "").removesuffix(".class_path")
        if flag not in _SHOWN or value is None:
            continue
        if key.endswith(".class_path"):
            value = value.rpartition(".")[2]
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        said[flag] = value if isinstance(value, bool | int | float | str) else str(value)
    return said


class Hyperparameters(Callback):
    """Hands a training's hyperparameters to its loggers.

    TensorBoard shows them beside all curves of the run's folder, those of a later test among them. Lightning would name
    the metrics beforehand, and TensorBoard then shows these of every run, whatever it measures.

    Args:
        values: of `hyperparameters`.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand them over before Lightning writes `hparams.yaml`."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.values)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin TensorBoard's entry, once the data are in order."""
        self._write(trainer, 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the entry."""
        self._write(trainer, 2)

    def _write(self, trainer: Trainer, part: int) -> None:
        """Write the second (start) or third (end) part of what torch makes for TensorBoard."""
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                write_summary(logger, hparams(self.values, {})[part])
