"""What all LightningModules agree on: how an optimizer is handed over, and whose checkpoint a file is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dermsynth.errors import InputError

ScheduleCallable = Callable[[Optimizer], LRScheduler]


def optimizer_config(
    optimizer: OptimizerCallable, parameters: Iterable[Any], lr_scheduler: ScheduleCallable | None
) -> Any:
    """For `configure_optimizers`: the optimizer, and its schedule stepped after every batch.

    Args:
        optimizer: makes the optimizer.
        parameters: or groups of them.
        lr_scheduler: makes its schedule.

    Raises:
        InputError: one of them refuses the numbers that it is given.
    """
    with _refusing("model.optimizer"):
        made = optimizer(parameters)
    if lr_scheduler is None:
        return made
    with _refusing("model.lr_scheduler"):
        return {"optimizer": made, "lr_scheduler": {"scheduler": lr_scheduler(made), "interval": "step"}}


@contextmanager
def _refusing(key: str) -> Iterator[None]:
    """Name the key where torch refuses a number."""
    try:
        yield
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{key}: {' '.join(str(error).split())}") from error


def clip_gradients(module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None) -> None:
    """For `configure_gradient_clipping`: Lightning's own way, also under a fused optimizer.

    Under mixed precision Lightning refuses to clip for an optimizer that can undo the scaling of gradients by itself,
    as fused ones can. Only float16 has such scaling.

    Raises:
        InputError: precision is 16-mixed, the optimizer is fused and clipping is asked for.
    """
    plugin = module.trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and getattr(optimizer, "_step_supports_amp_scaling", False) and limit:
        if plugin.scaler is not None:
            raise InputError(
                "trainer.gradient_clip_val: under precision 16-mixed gradients cannot be clipped for a fused "
                "optimizer. Use bf16-mixed, or leave `fused` out."
            )
        kind = GradClipAlgorithmType(algorithm or GradClipAlgorithmType.NORM)
        Precision.clip_gradients(plugin, optimizer, limit, kind)
    else:
        module.clip_gradients(optimizer, limit, algorithm)


def provenance_of(trainer: Trainer) -> dict[str, Any]:
    """What the data module says of the data that is trained on; empty for one that says nothing."""
    return getattr(trainer.datamodule, "provenance", {})  # type: ignore[attr-defined]


def check_kind(checkpoint: dict[str, Any], expected: str, **facts: Any) -> None:
    """Refuse a checkpoint that another model wrote.

    Args:
        checkpoint: as loaded.
        expected: the kind of model that loads it.
        facts: what must be the same in it, such as the base or the classes.

    Raises:
        InputError: saying what the checkpoint is and what was expected.
    """
    found = checkpoint.get("dermsynth")
    if found is None:
        raise InputError(f"the checkpoint was not written by dermsynth; expected one of a {expected}.")
    if found["kind"] != expected:
        raise InputError(f"the checkpoint is one of a {found['kind']}; expected one of a {expected}.")
    for name, value in facts.items():
        if found.get(name) != value:
            raise InputError(
                f"the checkpoint was made with {name} {found.get(name)!r}, the configuration has {value!r}."
            )
