"""What all LightningModules agree on: how an optimizer is handed over, and whose checkpoint a file is."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dermsynth.errors import InputError
from dermsynth.hub import first_line
from dermsynth.provenance import check_provenance
from dermsynth.run.checkpoint_io import configuration_of, read_checkpoint
from dermsynth.run.config import leaves

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
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if isinstance(plugin, MixedPrecision) and fused and limit:
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


def held_out_of(trainer: Trainer) -> frozenset[str]:
    """Ids of the images that the data module validates or tests on; none for one that says nothing."""
    return getattr(trainer.datamodule, "held_out", frozenset())  # type: ignore[attr-defined]


def kind_of(checkpoint: dict[str, Any]) -> str | None:
    """The kind of model that wrote a checkpoint; none if it is not one of ours."""
    found = checkpoint.get("dermsynth")
    kind = found.get("kind") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else None


def check_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose weights are not, one by one, those of the model that loads it.

    Args:
        saved: of the checkpoint.
        own: of the model, as far as checkpoints keep them.

    Raises:
        InputError: how many differ, naming one of them.
    """
    said = [{name: _kind_of_weight(tensor) for name, tensor in weights.items()} for weights in (saved, own)]
    differing = [name for name in sorted({**saved, **own}) if said[0].get(name) != said[1].get(name)]
    if differing:
        name = differing[0]
        theirs, ours = (kinds.get(name, "nothing") for kinds in said)
        raise InputError(
            f"the checkpoint is one of another network: {len(differing)} weights differ, such as {name}, {theirs} in "
            f"the file and {ours} in the configuration. Use the configuration of the run that wrote it (fit.yaml)."
        )


def _kind_of_weight(tensor: Tensor) -> str:
    # A checkpoint in half precision may be tested in full.
    usable = tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return (
        f"{tuple(tensor.shape)}" if usable else f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
    )


class Reloadable(LightningModule):
    """A module that its checkpoint alone is enough to make again."""

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **changes: Any,
    ) -> Self:
        """The trained module, of the configuration in its checkpoint, in evaluation mode.

        Neither optimizer nor schedule is made: nothing that a configuration names is imported.

        Args:
            checkpoint_path: the file.
            map_location: the device; by default the CPU.
            hparams_file: must not be given; the configuration is in the checkpoint.
            strict: must not be given; which weights a checkpoint keeps is the module's to say.
            weights_only: refuse whatever is not a tensor or a plain value.
            changes: arguments of the class that replace those of the configuration, such as `base` where it lies
                elsewhere now.

        Raises:
            InputError: the checkpoint is broken, or one of another model.
        """
        if hparams_file is not None or strict is not None:
            raise TypeError("hparams_file, strict: the checkpoint says what they would.")
        path = Path(checkpoint_path)
        checkpoint = read_checkpoint(path, weights_only)
        try:
            module = cls.of_configuration(configuration_of(checkpoint), **changes).take(checkpoint)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return module if map_location is None else module.to(map_location)

    @classmethod
    def of_configuration(cls, config: dict[str, Any], **changes: Any) -> Self:
        """The untrained module that a run's configuration describes.

        Args:
            config: of the run, as `configuration_of` gives it.
            changes: arguments that replace those of the configuration.

        Raises:
            InputError: it is not one of this class.
        """
        given = {**config["model"].get("init_args", {})}
        skipped = {"optimizer", "lr_scheduler", *changes}
        if "classes" in inspect.signature(cls).parameters:
            # Handed over by the data, and so not said again.
            given.setdefault("classes", config["data"].get("init_args", {}).get("classes"))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls, "model", skip=skipped, instantiate=False)
        given = {name: value for name, value in given.items() if name not in skipped}
        for name, value in leaves(given).items():
            if name.rpartition(".")[2] == "class_path":
                raise InputError(f"model.{name}: {value!r} is no part of a {cls.__name__}.")
        try:
            arguments = parser.instantiate_classes(parser.parse_object({"model": given})).model
        except (ArgumentError, TypeError) as error:
            raise InputError(f"its configuration is not one of a {cls.__name__}: {first_line(error)}") from error
        return cls(**vars(arguments), **changes)

    def take(self, checkpoint: dict[str, Any]) -> Self:
        """Load a checkpoint's weights, and what it says of them; evaluation mode."""
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=self.strict_loading)
        return self.eval()


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
    kind = kind_of(checkpoint)
    if not isinstance(found, dict) or kind is None:
        raise InputError(f"the checkpoint was not written by dermsynth; expected one of a {expected}.")
    if kind != expected:
        raise InputError(f"the checkpoint is one of a {kind}; expected one of a {expected}.")
    provenance = check_provenance("the checkpoint", found.get("data", {}))
    if provenance and not provenance.get("train_split_sha256"):
        raise InputError(
            "the checkpoint does not say on which train split it was fitted, so nothing can tell whether it saw the "
            "images that it is used on. Take another one of the run."
        )
    for name, value in facts.items():
        if found.get(name) != value:
            raise InputError(
                f"the checkpoint was made with {name} {found.get(name)!r}, the configuration has {value!r}."
            )
