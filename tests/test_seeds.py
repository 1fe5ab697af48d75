import itertools
from types import SimpleNamespace

import numpy as np
import torch

from dermsynth.data.loading.generation import image_seed
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.run.batch_seed import BatchSeed
from dermsynth.seeds import Purpose, entropy, stream_seed


def test_no_two_streams_of_a_seed_coincide():
    assert len(set(Purpose)) == len(Purpose.__members__)
    places = [(purpose, *where) for purpose in Purpose for where in itertools.product(range(3), repeat=3)]
    states = {tuple(np.random.SeedSequence(entropy(0, *place)).generate_state(4)) for place in places}
    # With three words for where, and with the two that most have.
    states |= {tuple(np.random.SeedSequence(entropy(0, *place[:3])).generate_state(4)) for place in places}
    assert len(states) == len(places) + len(Purpose) * 9
    assert len({stream_seed(0, *place) for place in places}) == len(places)
    assert all(0 <= stream_seed(2**32 - 1, *place) < 2**63 for place in places[:9])


def test_noise_dropout_and_generated_images_have_streams_of_their_own(base, monkeypatch):
    """With the same run seed, at the places where the words of one are those of another and zeros."""
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    model = DreamBooth(base)
    numbers = range(4)
    for epoch, batch in itertools.product(numbers, numbers):
        model._trainer = SimpleNamespace(global_rank=0)
        seeds += [generator.initial_seed() for generator in model._draws(epoch, batch, len(numbers))]
        for rank in numbers:
            at = SimpleNamespace(current_epoch=epoch, global_rank=rank)
            BatchSeed(0).on_train_batch_start(at, model, None, batch)
    seeds += [image_seed(0, index) for index in numbers]
    assert len(set(seeds)) == len(seeds) == 4**3 + 4**3 + 4
