"""An epoch's order dealt to ranks and batches, and a loader that remembers its place."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Sampler

from dermsynth.data.mixing.dealing import Indices
from dermsynth.errors import InputError
from dermsynth.seeds import Purpose, entropy


class Draw(NamedTuple):
    """One showing of one record.

    Args:
        record: its number.
        seed: for the augmentation; a function of (run seed, epoch, position), so that workers and ranks do not matter.
    """

    record: int
    seed: int


class TrainSampler(Sampler[list[Draw]]):
    """Batches of one rank, epoch by epoch.

    Global batch b is the order's slice `[b·G, (b + 1)·G)` with G = batch size × ranks; each rank takes its `batch_size`
    records of it in turn. The records of an incomplete last global batch are left out of that epoch.

    Args:
        order: epoch -> the records of the epoch in order.
        length: how many records that is.
        batch_size: records a rank takes in one batch.
        rank: of this process.
        ranks: how many processes there are.
        seed: of the run.
    """

    def __init__(
        self, order: Callable[[int], Indices], length: int, batch_size: int, rank: int, ranks: int, seed: int
    ) -> None:
        self.order, self.batch_size, self.rank, self.ranks, self.seed = order, batch_size, rank, ranks, seed
        #: G, the images of all ranks' batches together.
        self.global_batch = batch_size * ranks
        self.batches = length // self.global_batch
        if not self.batches:
            raise InputError(
                f"data.batch_size: {batch_size} × {ranks} processes is more than the {length} images of an epoch. "
                "Make it smaller."
            )
        self.epoch = 0
        #: (epoch, batches of it to leave out), where a resumed run starts.
        self.resume = (-1, 0)
        # Lightning calls set_epoch on `loader.batch_sampler.sampler`.
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    @property
    def start(self) -> int:
        """The first batch of the epoch that is dealt."""
        epoch, batches = self.resume
        return batches if epoch == self.epoch else 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.order(self.epoch)
        for batch in range(self.start, self.batches):
            first = (batch * self.ranks + self.rank) * self.batch_size
            # Position p has the p-th number of the epoch's stream; only those of this batch are made.
            numbers = np.random.PCG64(entropy(self.seed, Purpose.AUGMENT, number=self.epoch)).advance(first)
            seeds = numbers.random_raw(self.batch_size) >> np.uint64(33)
            yield list(map(Draw, order[first : first + self.batch_size].tolist(), seeds.tolist()))


class ShardSampler(Sampler[Draw]):
    """Every record exactly once over all ranks, in order; ranks may differ by one record."""

    def __init__(self, length: int, rank: int, ranks: int) -> None:
        self.numbers = range(rank, length, ranks)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(number, 0) for number in self.numbers)


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over a `TrainSampler` whose place in the epoch is saved in Lightning's checkpoints."""

    batch_sampler: TrainSampler
    _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch's own annotation names a private class
        self._given = self.batch_sampler.start
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches have been handed out and of how many, and the images of a global batch."""
        sampler = self.batch_sampler
        return {
            "epoch": sampler.epoch,
            "batches": self._given,
            "of": sampler.batches,
            "global_batch": sampler.global_batch,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave those batches out when that epoch is dealt; others are dealt from their beginning.

        Raises:
            InputError: the global batch is another one in the middle of an epoch. Lightning resumes by the number of
                batches, so that images would be left out of the epoch or come twice.
        """
        sampler, given = self.batch_sampler, state["batches"]
        if state["global_batch"] != sampler.global_batch:
            if given < state["of"]:
                raise InputError(
                    f"the checkpoint was written after {given} of {state['of']} batches of an epoch, each of "
                    f"{state['global_batch']} images over all processes, and now data.batch_size × processes is "
                    f"{sampler.global_batch}. Resume with {state['global_batch']}, or from a checkpoint at the end of "
                    "an epoch."
                )
            given = sampler.batches
        sampler.resume = (state["epoch"], given)
