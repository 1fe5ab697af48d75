"""What callbacks use of Lightning and torch that they do not promise, each checked before it is used."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from dermsynth.seams import SeamError, named_by, relied_on


class OpenAveraging(WeightAveraging):
    """Lightning's weight averaging whose average is a promised attribute, and which shares what is frozen.

    Lightning's own updates what is frozen as well, and copies the whole model, on whose device it may not fit twice.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average, whose frozen weights are the model's own.

        Raises:
            SeamError: Lightning makes, swaps or keeps it in another way.
        """
        check = functools.partial(relied_on, "callbacks.seams.OpenAveraging", "lightning", self)
        check("_average_model", None, WeightAveraging.on_save_checkpoint)
        check("_latest_update_step", None, WeightAveraging.state_dict)
        check("_swap_models", ("pl_module",), WeightAveraging.on_validation_epoch_start)
        frozen = [parameter for parameter in pl_module.parameters() if not parameter.requires_grad]
        with _shared(frozen) as asked:
            super().setup(trainer, pl_module, stage)
        if stage == "fit" and len(asked) < len(frozen):
            raise SeamError("callbacks.seams.OpenAveraging", "lightning", "makes an average without deepcopy")

    @property
    def average(self) -> AveragedModel:
        """The average; there is one in `fit` alone."""
        assert self._average_model is not None
        return self._average_model

    @property
    def updated_at(self) -> int:
        """The optimizer step of the last update, which checkpoints keep."""
        return self._latest_update_step

    @updated_at.setter
    def updated_at(self, step: int) -> None:
        self._latest_update_step = step

    def swap(self, pl_module: LightningModule) -> None:
        """Exchange the values of the average and of the model."""
        self._swap_models(pl_module)


@contextmanager
def _shared(parameters: list[torch.nn.Parameter]) -> Iterator[set[int]]:
    """Let a deep copy of a module have these parameters themselves; yields the ids of those that were asked for."""
    asked: set[int] = set()
    for parameter in parameters:
        parameter.__deepcopy__ = functools.partial(_itself, parameter, asked)  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        for parameter in parameters:
            del parameter.__deepcopy__


def _itself(parameter: torch.nn.Parameter, asked: set[int], memo: dict[int, Any]) -> torch.nn.Parameter:
    asked.add(id(parameter))
    return parameter


def in_backward_pass() -> bool:
    """Whether gradients are being computed; nothing public of torch tells."""
    check = functools.partial(relied_on, "callbacks.seams.in_backward_pass", "torch")
    return bool(check(check(torch, "_C"), "_current_graph_task_id")() != -1)


def attention_on_cpu() -> tuple[Any, Any]:
    """The operations of attention on a CPU and of its gradient, for which torch's counter of FLOPs has no formula."""
    check = functools.partial(relied_on, "callbacks.seams.attention_on_cpu", "torch", torch.ops.aten)
    forward = check("_scaled_dot_product_flash_attention_for_cpu")
    return forward, check("_scaled_dot_product_flash_attention_for_cpu_backward")


def takes_tensors(formula: Callable[..., int]) -> Callable[..., int]:
    """Have torch's counter of FLOPs give a formula tensors and not their shapes, as it does those of its own."""
    named_by("callbacks.seams.takes_tensors", "torch", FlopCounterMode.__init__, "_get_raw")
    formula._get_raw = True  # type: ignore[attr-defined]
    return formula
