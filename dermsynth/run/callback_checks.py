"""Which callbacks cannot be had, or not together."""

from collections.abc import Sequence

from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from lightning.pytorch.utilities.model_helpers import is_overridden

from dermsynth.errors import InputError


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that Lightning cannot have together, or that look for a learning rate where there is none.

    Raises:
        InputError: naming the callback.
    """
    keys: set[str] = set()
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            raise InputError(f"trainer.callbacks: {name} does not go with a run that is resumed. Leave it out.")
        # The states of two with one key cannot be told apart in a checkpoint.
        if callback.state_key in keys and is_overridden("state_dict", callback, Callback):
            raise InputError(f"trainer.callbacks: {callback.state_key} is listed twice. Leave one out.")
        keys.add(callback.state_key)
