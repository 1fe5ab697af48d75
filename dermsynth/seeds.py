"""Streams of random numbers: what each is for and where in a run it begins, so that no two coincide. No torch."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for."""

    REAL = 0
    SYNTHETIC = 1
    SHUFFLE = 2
    DRAW = 3
    AUGMENT = 4
    VIEW = 5
    CAPTION = 6
    NOISE = 7
    LAYERS = 8
    IMAGE = 9
    AUDIT = 10
    PROMPT = 11
    GUIDANCE = 12
    REDRAWN = 13


def entropy(seed: int, purpose: Purpose, place: int = 0, number: int = 0, *more: int) -> tuple[int, ...]:
    """The seed of one stream, for numpy. At least four words: numpy fills up with zeros, so (1, 2) is as (1, 2, 0).

    Args:
        seed: of the run, or of what the stream belongs to.
        purpose: what it is for.
        place: where, such as a class or a sample's place in its batch.
        number: which of those, such as an epoch or batch.
        more: what else tells it apart; as many for all streams of a purpose.
    """
    return seed, purpose, place, number, *more


def stream_seed(seed: int, purpose: Purpose, place: int = 0, number: int = 0, *more: int) -> int:
    """The seed of one stream, for torch: in `[0, 2⁶³)`. Args are those of `entropy`."""
    words = np.random.SeedSequence(entropy(seed, purpose, place, number, *more))
    return int(words.generate_state(1, np.uint64)[0] >> 1)
