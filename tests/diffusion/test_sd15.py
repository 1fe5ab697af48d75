"""Stable Diffusion 1.5 at full size, from its configuration files."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dermsynth.diffusion.parts import build_parts

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


def test_the_text_encoder_runs_on_the_real_tokenizer(configs):
    tokenizer = CLIPTokenizer.from_pretrained(configs / "tokenizer")
    ids = tokenizer(["sks"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert ids[0, :3].tolist() == [49406, 48136, 49407]
    encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder")).eval()
    with torch.inference_mode():
        embeddings = encoder(ids)[0]
    assert embeddings.shape == (1, 77, 768)
    assert embeddings.isfinite().all()
