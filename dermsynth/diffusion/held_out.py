"""The denoising loss of held-out images, at noise and timesteps that belong to the image. Pure torch.

Taken at random, timesteps would make most of the difference between two validations: the loss at t = 10 is many times
that at t = 900. Here they depend on the image's id alone, so that two checkpoints, two runs and two seeds are compared
on the same noise, whatever the batches and ranks.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Timesteps of an image, one from each quarter of the schedule.
TIMESTEPS = 4


def image_generator(image_id: str) -> torch.Generator:
    """The random numbers of an image, which depend on its id alone."""
    digest = hashlib.sha256(image_id.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def image_timesteps(length: int, draws: Sequence[torch.Generator]) -> Tensor:
    """Timesteps spread evenly over the schedule from one random number per image (Kingma et al. 2021, appendix I.1).

    Args:
        length: T, the timesteps of the schedule.
        draws: of B images.

    Returns:
        int64 `[TIMESTEPS, B]`; row k lies in the k-th part of `[0, T)`.
    """
    start = torch.stack([torch.randint(length, (), generator=one) for one in draws])
    return (torch.arange(TIMESTEPS)[:, None] * length + start) // TIMESTEPS


class HeldOutLoss:
    """Sums of the images' losses by class, so that batches and ranks do not matter.

    Args:
        classes: in the order of the labels.
        device: where the losses are.
    """

    def __init__(self, classes: Sequence[str], device: torch.device) -> None:
        self.classes = classes
        # Losses and images of each class.
        self._sums = torch.zeros(2, len(classes), device=device)

    def add(self, losses: Tensor, labels: Tensor) -> None:
        """Add images.

        Args:
            losses: float32 `[B]`.
            labels: int64 `[B]`.
        """
        # No index_add_, which adds in a random order on a GPU, and no product of matrices, which autocast would round.
        belongs = torch.nn.functional.one_hot(labels, len(self.classes))
        self._sums += torch.stack([(losses[:, None] * belongs).sum(dim=0), belongs.sum(dim=0)])

    def means(self, reduce: Callable[..., Tensor]) -> dict[str, Tensor]:
        """What is logged: `loss` over all images, `loss_balanced` over the means of the classes, `loss/CLASS` each.

        Args:
            reduce: sums a tensor over the ranks, as a Lightning strategy does.
        """
        total, count = reduce(self._sums, reduce_op="sum")
        seen = [n for n, number in enumerate(count.tolist()) if number]
        means = total / count
        return {
            "loss": total.sum() / count.sum(),
            "loss_balanced": means[seen].mean(),
            **{f"loss/{self.classes[n]}": means[n] for n in seen},
        }
