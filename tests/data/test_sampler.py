import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.data.sampler import ResumableLoader, ShardSampler, TrainSampler
from dermsynth.errors import InputError


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
    assert state == {"epoch": 0, "batches": 4}
    resumed = loader()
    resumed.load_state_dict(state)
    assert [batch.tolist() for batch in resumed] == batches[4:]
    assert resumed.state_dict() == {"epoch": 0, "batches": 10}
    resumed.batch_sampler.set_epoch(1)
    straight.batch_sampler.set_epoch(1)
    assert [b.tolist() for b in resumed] == [b.tolist() for b in straight]
