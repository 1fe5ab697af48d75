"""Numbers of all processes of a training, without waiting for any."""

import torch
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a number over all processes, queued on the device; the number itself where there is one process.

    Lightning's own `sync_dist` waits at a barrier first.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
