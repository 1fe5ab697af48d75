"""Small image sets and pipelines in the real formats, for tests."""

import json
from pathlib import Path

import cv2
import numpy as np

from dermsynth.data.sets import manifest
from dermsynth.data.sets.manifest import ORIGINS, Record, sha256_file
from dermsynth.lesions import DIAGNOSES

CLASSES = ["NV", "MEL", "SK"]


def make_set(
    root: Path,
    per_class: dict[str, int] | None = None,
    split: str | None = None,
    origin: str = "real",
    size: int = 16,
    train_split_sha256: str | None = None,
) -> Path:
    """An image set of flat colours, one colour a class plus noise; by default 4 train, 2 val, 2 test a class."""
    rng = np.random.default_rng(ORIGINS.index(origin))  # a generated set is no copy of a real one
    (root / "images").mkdir(parents=True)
    records = []
    for number, (code, count) in enumerate((per_class or dict.fromkeys(CLASSES, 8)).items()):
        for index in range(count):
            image_id = f"{origin[0]}_{code}_{index:03d}"
            colour = np.roll([220, 120, 60], number)
            pixels = np.clip(colour + rng.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)
            file_name = f"images/{image_id}.png"
            cv2.imwrite(str(root / file_name), pixels)
            place = split or ("train" if index < count // 2 else "val" if index < count * 3 // 4 else "test")
            extra = {} if train_split_sha256 is None else {"train_split_sha256": train_split_sha256}
            records.append(
                Record(
                    file_name=file_name,
                    image_id=image_id,
                    sha256=sha256_file(root / file_name),
                    width=size,
                    height=size,
                    diagnosis=code,
                    malignant=int(bool(DIAGNOSES[code].malignant)),
                    group=f"g_{image_id}",
                    split=place,
                    origin=origin,
                    source="drawn" if origin == "real" else root.name,
                    license="CC0-1.0",
                    attribution="nobody",
                    extra=extra,
                )
            )
    manifest.write(root, records, {})
    return root


def make_configs(root: Path) -> Path:
    """Configuration files of a pipeline so small that a training step takes milliseconds; 16 px, latents 8 × 8."""
    files = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": 8,
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "sample_size": 16,
            "latent_channels": 4,
            "block_out_channels": [8, 8],
            "layers_per_block": 1,
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "norm_num_groups": 4,
            "scaling_factor": 0.5,
        },
        "text_encoder/config.json": {
            "model_type": "clip_text_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "skip_prk_steps": True,
            "steps_offset": 1,
        },
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    return root


def make_pipeline(root: Path) -> Path:
    """That pipeline with random weights, saved as diffusers does."""
    from dermsynth.diffusion.parts import build_parts, save_pipeline

    configs = make_configs(root.with_name(f"{root.name}-configs"))
    root.mkdir(parents=True)
    save_pipeline(build_parts(configs, ["a dermoscopic image of sks melanoma nevus keratosis"]), root, {})
    return root
