"""Stable Diffusion 1.5 at full size, from its configuration files."""

import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from dermsynth.diffusion.parts import build_parts
from tests.builders import make_configs

pytestmark = pytest.mark.real_data


@pytest.fixture
def configs(real_models):
    return real_models / "stable-diffusion-v1-5"


def test_every_part_has_the_published_number_of_parameters(configs):
    with torch.device("meta"):
        parts = build_parts(configs, texts=[])
    counts = {
        name: sum(p.numel() for p in getattr(parts, name).parameters()) for name in ("unet", "vae", "text_encoder")
    }
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert isinstance(parts.unet, UNet2DConditionModel)
    assert isinstance(parts.vae, AutoencoderKL)


def test_the_text_encoder_runs_on_the_real_tokenizer(configs, tmp_path):
    mixed = make_configs(tmp_path / "configs")  # UNet and autoencoder stay tiny, to save memory
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(configs / name, mixed / name, dirs_exist_ok=True)
    parts = build_parts(mixed, texts=[])
    ids = parts.tokenize(["sks"])
    assert ids[0, :3].tolist() == [49406, 48136, 49407]
    with torch.inference_mode():
        embeddings = parts.text_encoder.eval()(ids)[0]
    assert embeddings.shape == (1, 77, 768)
    assert embeddings.isfinite().all()
