"""An image through an autoencoder and back: what is left of it, with nothing generated. Pure torch."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from dermsynth.errors import InputError


def reconstruct(vae: AutoencoderKL, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The decoder's image of the mean of the encoder's latents.

    The mean and not a sample, so that the result is a function of the image alone.

    Args:
        vae: on the device that shall compute.
        image: uint8 `[H, W, 3]`; it is continued at its lower and right edges to sides that latents have.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        InputError: the result is not finite.
    """
    height, width = image.shape[:2]
    step = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent, on a side
    whole = np.pad(image, ((0, -height % step), (0, -width % step), (0, 0)), mode="edge")
    pixels = torch.from_numpy(whole).permute(2, 0, 1)[None].to(vae.device, vae.dtype) / 127.5 - 1
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    if not decoded.isfinite().all():
        raise InputError("--base: its autoencoder gives NaN or infinity, so its weights are broken. Give another.")
    values = ((decoded[0].float() + 1) * 127.5).round().clamp(0, 255).byte()
    made: NDArray[np.uint8] = values.permute(1, 2, 0)[:height, :width].cpu().numpy()
    return made
