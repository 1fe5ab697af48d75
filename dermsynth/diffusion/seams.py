"""What is used of diffusers, transformers and torch that they do not promise, each checked before it is used."""

import functools

import torch
from torch import nn

from dermsynth.seams import SeamError, part_of, relied_on

# By library, where its blocks are.
_BLOCKS = (
    ("diffusers", "diffusers.models.attention", "BasicTransformerBlock"),
    ("diffusers", "diffusers.models.resnet", "ResnetBlock2D"),
    ("transformers", "transformers.models.clip.modeling_clip", "CLIPEncoderLayer"),
)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The residual and transformer blocks of a UNet, or the layers of a CLIP text encoder.

    diffusers' own list for regional compilation holds the transformer blocks alone; the residual blocks are as many
    again and have the group norms, which gain most from being fused with their neighbours.

    Raises:
        SeamError: it has none.
    """
    seam = "diffusion.seams.repeated_blocks"
    kinds = tuple(relied_on(seam, library, part_of(seam, library, module), name) for library, module, name in _BLOCKS)
    found = [module for module in model.modules() if isinstance(module, kinds)]
    if not found:
        names = " nor ".join(kind.__name__ for kind in kinds)
        library = type(model).__module__.partition(".")[0]
        raise SeamError(seam, library, f"has in {type(model).__name__} neither {names}")
    return found


def set_compiler(shapes: int) -> None:
    """Let torch compile so many shapes of one kind of block, and leave blocks whole under DDP, in all of the process.

    Under DDP each would be cut in pieces, for the reduction of gradients to begin between two of them; between two
    blocks it can begin anyway.

    Args:
        shapes: the least number; a larger one that is set stays.
    """
    check = functools.partial(relied_on, "diffusion.seams.set_compiler", "torch")
    config = check(check(torch, "_dynamo"), "config")
    least = check(config, "cache_size_limit")
    check(config, "optimize_ddp")
    config.cache_size_limit = max(shapes, least)
    config.optimize_ddp = False
