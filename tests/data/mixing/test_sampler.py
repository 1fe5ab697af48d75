import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dermsynth.data.mixing.dealing import count_cells
from dermsynth.data.mixing.sampler import ResumableLoader, ShardSampler, TrainSampler
from dermsynth.errors import InputError
from tests.data.mixing.test_policies import mixes


def order_of(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).permutation(53).astype(np.int64)


@given(batch_size=st.integers(1, 6), ranks=st.integers(1, 4))
@settings(deadline=None)
def test_ranks_share_an_epoch_without_repeats_and_in_its_order(batch_size, ranks):
    samplers = [TrainSampler(order_of, 53, batch_size, rank, ranks, seed=0) for rank in range(ranks)]
    dealt = [[draw.record for draw in batch] for batches in zip(*samplers, strict=True) for batch in batches]
    flat = [record for batch in dealt for record in batch]
    whole = 53 // (batch_size * ranks) * batch_size * ranks
    assert flat == order_of(0)[:whole].tolist()


def test_augmentation_seeds_follow_the_position_not_the_rank():
    one = [draw for batch in TrainSampler(order_of, 53, 4, 0, 1, seed=5) for draw in batch]
    two = [TrainSampler(order_of, 53, 2, rank, 2, seed=5) for rank in range(2)]
    both = [draw for batches in zip(*two, strict=True) for batch in batches for draw in batch]
    assert both == one


@given(mixes, st.integers(0, 3), st.sampled_from([1, 2, 4]))
@settings(deadline=None, max_examples=50)
def test_one_two_three_or_eight_ranks_give_the_same_global_batches(policy, epoch, times):
    real, made = np.arange(61) % 3, np.arange(40) % 3
    together = 24 * times
    length = round(policy.expected(*count_cells(real, made)).sum())
    assume(length >= together)

    def order(epoch):
        return policy.order(real, made, 0, epoch)

    dealt = {}
    for ranks in (1, 2, 3, 8):
        samplers = [TrainSampler(order, length, together // ranks, rank, ranks, seed=0) for rank in range(ranks)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        dealt[ranks] = [[draw for batch in batches for draw in batch] for batches in zip(*samplers, strict=True)]
    assert dealt[1] == dealt[2] == dealt[3] == dealt[8]
    # The epoch's order, and only the rest that fills no global batch is left out.
    flat = [draw.record for batch in dealt[1] for draw in batch]
    assert flat == order(epoch)[: length // together * together].tolist()


def test_an_augmentation_seed_is_a_function_of_seed_epoch_and_position():
    def seeds(seed=5, epoch=0, batch_size=4):
        sampler = TrainSampler(order_of, 53, batch_size, 0, 1, seed)
        sampler.set_epoch(epoch)
        return [draw.seed for batch in sampler for draw in batch]

    assert seeds(batch_size=4) == seeds(batch_size=13)
    assert len({*seeds(), *seeds(epoch=1), *seeds(seed=6)}) == 3 * 52
    assert min(seeds()) >= 0
    assert max(seeds()) < 2**31


def test_only_a_batch_at_a_time_becomes_python_numbers():
    order = np.arange(1_000_000)
    sampler = iter(TrainSampler(lambda epoch: order, len(order), 64, 0, 1, seed=0))
    next(sampler)
    tracemalloc.start()
    batches = [len(next(sampler)) for _ in range(100)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batches == [64] * 100
    assert peak < 200_000


def test_a_batch_larger_than_the_epoch_is_refused():
    with pytest.raises(InputError, match=r"data\.batch_size: 30 × 2 processes"):
        TrainSampler(order_of, 53, 30, 0, 2, seed=0)


@given(length=st.integers(0, 20), ranks=st.integers(1, 4))
@settings(deadline=None)
def test_shards_cover_everything_once(length, ranks):
    shards = [[d.record for d in ShardSampler(length, rank, ranks)] for rank in range(ranks)]
    assert sorted(record for shard in shards for record in shard) == list(range(length))


class Numbers:
    def __getitem__(self, draw):
        return draw.record


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_its_state_says_and_starts_the_next_epoch_at_the_front(workers):
    def loader():
        sampler = TrainSampler(order_of, 53, 5, 0, 1, seed=0)
        return ResumableLoader(Numbers(), batch_sampler=sampler, num_workers=workers)

    straight = loader()
    batches = [batch.tolist() for batch in straight]
    stopped = loader()
    iterator = iter(stopped)
    for _ in range(4):
        next(iterator)
    state = stopped.state_dict()
    assert state == {"epoch": 0, "batches": 4, "of": 10, "global_batch": 5}
    resumed = loader()
    resumed.load_state_dict(state)
    assert [batch.tolist() for batch in resumed] == batches[4:]
    assert resumed.state_dict() == {**state, "batches": 10}
    resumed.batch_sampler.set_epoch(1)
    straight.batch_sampler.set_epoch(1)
    assert [b.tolist() for b in resumed] == [b.tolist() for b in straight]


def place(given, **options):
    """The state of a loader of batches of 5 by one process after so many of its 10 batches, given to another one."""

    def loader(batch_size, ranks):
        sampler = TrainSampler(order_of, 53, batch_size, 0, ranks, seed=0)
        return ResumableLoader(Numbers(), batch_sampler=sampler)

    first, second = loader(5, 1), loader(**options)
    batches = iter(first)
    for _ in range(given):
        next(batches)
    second.load_state_dict(first.state_dict())
    return second


@pytest.mark.parametrize("given", [4, 6])
@pytest.mark.parametrize("options", [{"batch_size": 5, "ranks": 2}, {"batch_size": 10, "ranks": 1}])
def test_another_global_batch_is_refused_within_an_epoch(given, options):
    with pytest.raises(InputError, match=rf"after {given} of 10 batches .* each of 5 images .* is 10\. Resume with 5"):
        place(given, **options)


def test_the_same_global_batch_goes_on_and_another_one_after_a_whole_epoch():
    assert [batch.tolist() for batch in place(4, batch_size=1, ranks=5)] == [[n] for n in order_of(0)[20:50:5]]
    other = place(10, batch_size=5, ranks=2)
    assert list(other) == []
    other.batch_sampler.set_epoch(1)
    assert len(list(other)) == 5
