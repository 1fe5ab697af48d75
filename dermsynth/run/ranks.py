"""What a run's processes do for one another: work, in which all fail where one does and none waits on, and means."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor

from dermsynth.contracts import Processes
from dermsynth.errors import InputError

if TYPE_CHECKING:
    from lightning import Trainer

_T = TypeVar("_T")


def rank_and_ranks(trainer: Processes | None) -> tuple[int, int]:
    """Which process this is, and of how many; the only one without a trainer."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def done_by(workers: Iterable[int], work: Callable[[], object], trainer: Processes | None) -> None:
    """Let some processes do their work, and continue when all of them have.

    Args:
        workers: ranks of those that do it.
        work: what each of them does.
        trainer: of this process; without one there is no other process.

    Raises:
        InputError: another process failed; where this one did, its own exception.
    """
    if trainer is None:
        work()
        return
    failure: Exception | None = None
    message: str | None = None
    workers = list(workers)
    if trainer.global_rank in workers:
        try:
            work()
        except Exception as error:  # raised below, when the others know of it
            failure, known = error, isinstance(error, InputError)
            message = str(error) if known else f"process {trainer.global_rank} failed: {error!r}"
    for rank in workers:
        said = trainer.strategy.broadcast(message, rank)
        if said is not None:
            raise failure or InputError(said)


def told_by_first(find: Callable[[], _T], trainer: Processes | None) -> _T:
    """What the first process finds, in all of them: another may see a shared folder a moment later, and otherwise."""
    found: list[_T] = []
    done_by([0], lambda: found.append(find()), trainer)
    # Of another process nothing is taken.
    return trainer.strategy.broadcast(found[0] if found else cast(_T, None), 0) if trainer else found[0]


def mean_if_logged(value: Tensor, trainer: "Trainer | None") -> Tensor:
    """The mean of a number of a training step over all processes if Lightning logs the step, else the number itself.

    So the processes wait for one another's numbers in those steps alone. A step that is logged only because training
    stops there has the first process's own. In `callback_metrics`, which a checkpoint can monitor, the number differs
    between processes wherever the step is not logged.
    """
    every: int = trainer.log_every_n_steps if trainer else 0  # type: ignore[attr-defined]  # Lightning adds it later
    return mean_over_ranks(value) if trainer and every and (trainer.global_step + 1) % every == 0 else value


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a number over all processes, queued on the device; the number itself where there is one process.

    Lightning's own `sync_dist` waits at a barrier first.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
