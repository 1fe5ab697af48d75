"""The callbacks of every training: the best checkpoint, a good end on signals, and the learning rate's curve.

They are written into the configuration before anything else reads it, so that `fit.yaml` is complete and `fit --config
fit.yaml` is the same training. What a configuration lists itself takes the place of the default of that class.
"""

from pydoc import locate
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from lightning import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint

from dermsynth.run.checkpoints import Best, Judged
from dermsynth.run.classes import located

#: Their names, by which `without` leaves them out.
Default = Literal["ModelCheckpoint", "Preemption", "LearningRateMonitor"]


def add_default_callbacks(config: Namespace) -> None:
    """Put the defaults that a training's configuration does not list in front of `trainer.callbacks`.

    In front, as flags such as `--trainer.callbacks.beside` mean the last one, also where `fit.yaml` is given again.

    Args:
        config: of `fit`, as parsed; it is changed.
    """
    trainer, left_out = config.trainer, set(config.without or [])
    if trainer.fast_dev_run:
        return
    if trainer.enable_checkpointing is False:  # with which Lightning takes no callback that saves
        left_out |= {"ModelCheckpoint", "Preemption"}
    if trainer.logger is False or trainer.logger == []:
        left_out.add("LearningRateMonitor")
    given = trainer.callbacks or []
    given = [*given] if isinstance(given, list) else [given]
    kinds = [kind for callback in given if isinstance(kind := locate(callback.class_path), type)]
    missing = []
    for default in _defaults(config.model.class_path):
        kind = locate(default["class_path"])
        assert isinstance(kind, type)
        if kind.__name__ not in left_out and not any(issubclass(one, kind) for one in kinds):
            missing.append(default)
    if missing:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--callbacks", type=list[Callback])
        trainer.callbacks = [*parser.parse_object({"callbacks": missing}).callbacks, *given]


def _defaults(class_path: str) -> list[dict[str, Any]]:
    """All that a training of this model would have."""
    best, model = [], locate(class_path)
    if isinstance(model, Judged) and isinstance(model.best, Best):
        arguments = {"filename": "best", "monitor": model.best.metric, "mode": model.best.mode}
        best = [_part(ModelCheckpoint, enable_version_counter=False, **arguments)]
    # By name, as callbacks are not imported from here.
    return [*best, {"class_path": located("Preemption")}, _part(LearningRateMonitor, logging_interval="step")]


def _part(kind: type, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.callbacks.{kind.__name__}", "init_args": arguments}
