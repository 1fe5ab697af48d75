"""DreamBooth as the usual script writes it: PIL loading, autoencoder and text encoder in the step, eager, one process.

It is what `benchmarks.dreambooth` compares with: the settings of diffusers' `train_dreambooth.py`, which are half
precision by autocast on a GPU, `torch.optim.AdamW`, no loader processes, and the loss shown at every step; with LoRA
those of `train_dreambooth_lora.py`, which keeps the frozen UNet in half precision.
"""

import contextlib
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.stopwatch import Stopwatch
from dermsynth import lesions


class Images(Dataset[tuple[Tensor, str]]):
    """The train split of a set, each image with its prompt."""

    def __init__(self, root: Path, classes: list[str], prompt: str, size: int) -> None:
        column = "malignant" if classes == ["benign", "malignant"] else "diagnosis"
        names = (
            dict(zip("01", classes, strict=True)) if column == "malignant" else dict(zip(classes, classes, strict=True))
        )
        with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train" and row[column] in names]
        self.items = [
            (root / row["file_name"], prompt.format(token="sks", lesion=lesions.phrase(names[row[column]])))
            for row in rows
        ]
        self.size = size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        path, prompt = self.items[index % len(self.items)]
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        scale = self.size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = ((side - self.size) // 2 for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + self.size, top + self.size)), np.float32)
        return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1), prompt


class Pairs(Dataset[list[tuple[Tensor, str]]]):
    """An instance with a class image each; both sets from their beginning again when they are through."""

    def __init__(self, instances: Images, priors: Images) -> None:
        self.instances, self.priors = instances, priors

    def __len__(self) -> int:
        return max(len(self.instances), len(self.priors))

    def __getitem__(self, index: int) -> list[tuple[Tensor, str]]:
        return [self.instances[index], self.priors[index]]


def train(config: dict[str, Any], batch_size: int, stopwatch: Stopwatch) -> None:
    """Train until the stopwatch has what it wants.

    Args:
        config: of our run, resolved.
        batch_size: images in a step, class images included.
        stopwatch: told of every step.
    """
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    on_gpu = config["trainer"]["accelerator"] != "cpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    # On a CPU what our run computes in, so that the two are comparable; on a GPU the script's own default.
    half = torch.float16 if on_gpu else torch.bfloat16 if config["trainer"]["precision"] == "bf16-mixed" else None
    base = model["base"]
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder", dtype=torch.float32).to(device)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae").to(device, half).requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").to(device).train()
    schedule = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    if not model["train_text_encoder"]:
        text_encoder.to(dtype=half).requires_grad_(False)
    if model["gradient_checkpointing"]:
        unet.enable_gradient_checkpointing()
    if lora := model["lora"]:
        # Adapters in float32 on a frozen UNet in half precision.
        unet.to(dtype=half).requires_grad_(False)
        unet.add_adapter(LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=list(lora["targets"])))
        cast_training_params(unet, torch.float32)
    trained = [p for part in (unet, text_encoder) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-6, weight_decay=1e-2)
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)
    autocast = torch.autocast(device.type, half) if half else contextlib.nullcontext()

    prior = bool(data["synthetic"])
    real, classes, size = Path(data["real"]), data["classes"], data["size"]
    sets = [Images(real, classes, "a dermoscopic image of {token} {lesion}", size)]
    if prior:
        sets.append(Images(Path(data["synthetic"][0]), classes, "a dermoscopic image of {lesion}", size))
    dataset: Dataset[Any] = Pairs(*sets) if prior else sets[0]

    def collate(items: list[Any]) -> tuple[Tensor, Tensor]:
        if prior:  # instances first
            items = [pair[half] for half in (0, 1) for pair in items]
        prompts = tokenizer([p for _, p in items], padding="max_length", truncation=True, return_tensors="pt")
        return torch.stack([pixels for pixels, _ in items]), prompts.input_ids

    loader = DataLoader(dataset, batch_size // (2 if prior else 1), shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        for pixels, ids in loader:
            latents = vae.encode(pixels.to(device, half)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, len(schedule.betas), (len(latents),), device=device)
            noisy = schedule.add_noise(latents, noise, timesteps)
            with autocast:
                hidden = text_encoder(ids.to(device))[0]
                prediction = unet(noisy, timesteps, hidden).sample
            velocity = schedule.config.prediction_type == "v_prediction"
            wanted = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
            if prior:
                (mine, theirs), (wanted, other) = prediction.chunk(2), wanted.chunk(2)
                loss = F.mse_loss(mine.float(), wanted.float()) + F.mse_loss(theirs.float(), other.float())
            else:
                loss = F.mse_loss(prediction.float(), wanted.float())
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            loss.item()  # for the progress bar
            if stopwatch.step(len(pixels), device):
                return
