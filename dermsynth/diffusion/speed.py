"""What makes a training step faster without changing what it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from dermsynth.diffusion.seams import repeated_blocks, set_compiler

# Shapes of one kind of block that may be compiled; the residual blocks of Stable Diffusion 1.5 have 14.
_SHAPES = 64


def compile_blocks(unet: nn.Module) -> None:
    """Compile the residual and transformer blocks of a diffusers UNet for training, each at its first use.

    A shape of a block is compiled once, so training starts sooner than with the whole UNet compiled. The blocks stay in
    place and their weights keep their names.
    """
    set_compiler(_SHAPES)
    for block in repeated_blocks(unet):
        block.forward = _compiled_where_trained(block.forward)


def _compiled_where_trained(forward: Callable[..., Any]) -> Callable[..., Any]:
    # Static: a kernel for every size would be slower than a kernel for each.
    compiled = torch.compile(forward, dynamic=False)

    def either(*args: Any, **kwargs: Any) -> Any:
        # Validation and samples come in batches of other sizes, and each would have to be compiled.
        return (compiled if torch.is_grad_enabled() else forward)(*args, **kwargs)

    return either


def shard(part: nn.Module, mesh: DeviceMesh) -> None:
    """Spread weights, gradients and optimizer state over GPUs (FSDP2), each block of its own and then the rest.

    Args:
        part: UNet of diffusers or text encoder of transformers.
        mesh: the GPUs, of one dimension.
    """
    for block in repeated_blocks(part):
        fully_shard(block, mesh=mesh)
    fully_shard(part, mesh=mesh)


@contextmanager
def whole(*parts: nn.Module) -> Iterator[None]:
    """Hold on each GPU all weights of what `shard` has spread, for as long as nothing is trained.

    Spread, they are collected for each forward pass, and a GPU that has one more than the others would wait for them
    for ever.
    """
    shards = [(part, module) for part in parts for module in part.modules() if isinstance(module, FSDPModule)]
    with torch.inference_mode(False):  # what is allocated here is used in training, too
        for _, module in shards:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
    yield
    for part, module in shards:
        module.reshard()
        # As `fully_shard` has it: the backward pass begins with what lies outside of the blocks.
        module.set_reshard_after_forward(module is not part, recurse=False)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU without waiting for what the device has yet to do.

    Only a copy from pinned memory is queued like any other work; PyTorch keeps that memory until it is done.
    """
    if device.type in ("cpu", "mps"):  # Apple's GPUs may read it before it is there
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
