"""Images that can be learned by heart, and a base that can learn them in a minute."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from dermsynth.data.sets import manifest
from dermsynth.diffusion.parts import build_parts, save_pipeline
from tests.builders import make_configs, make_set


def make_coloured_set(root: Path, per_class: dict[str, int]) -> Path:
    """A set whose images are 16 squares of random colours: no two are alike, and their classes say nothing."""
    make_set(root, per_class)
    images, rng = manifest.read(root), np.random.default_rng(0)
    for record in images.records:
        squares = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        cv2.imwrite(str(images.path(record)), cv2.resize(squares, (16, 16), interpolation=cv2.INTER_NEAREST))
    records = [replace(r, sha256=manifest.sha256_file(images.path(r))) for r in images.records]
    manifest.write(root, records, {})
    return root


def make_base_of_clear_latents(root: Path) -> str:
    """The small pipeline with a wider UNet, and an autoencoder whose latents are the image and not noise.

    With random weights an autoencoder's latents have the variance that its other half says, 1: noise, which nobody
    could learn by heart.
    """
    configs = make_configs(root.with_name(f"{root.name}-configs"))
    file = configs / "unet/config.json"
    wider = {"block_out_channels": [32, 64], "attention_head_dim": 4, "norm_num_groups": 8}
    file.write_text(json.dumps(json.loads(file.read_text()) | wider))
    parts = build_parts(configs, ["a dermoscopic image of sks melanoma nevus keratosis"])
    pixels = torch.randint(0, 2, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    with torch.no_grad():
        last = parts.vae.quant_conv
        last.weight[4:], last.bias[4:] = 0, -20  # the log of the variance
        mean = parts.vae.encode(pixels).latent_dist.mean
        spread = mean.std(dim=(0, 2, 3)) * parts.scaling_factor
        last.weight[:4] /= spread[:, None, None, None]
        last.bias[:4] = (last.bias[:4] - mean.mean(dim=(0, 2, 3))) / spread
    root.mkdir(parents=True)
    save_pipeline(parts, root, {})
    return str(root)
