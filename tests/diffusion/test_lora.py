import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.parts import load_parts
from dermsynth.diffusion.sampling import Sampling, sample
from dermsynth.errors import InputError


@pytest.fixture
def trained(base):
    """A module whose adapters are as if trained: no factor is zero any more."""
    model = DreamBooth(base, lora=LoRA(rank=2, alpha=4), train_text_encoder=True, sampling=Sampling(3, 2.0)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def test_the_exported_file_gives_our_own_image_in_diffusers(base, trained, tmp_path):
    image = trained.sample(["melanoma"], [5])
    plain = sample(load_parts(base), ["melanoma"], [5], trained.sampling)
    assert np.abs(image.astype(int) - plain).max() > 3
    trained.export(tmp_path / "lora", "lora")
    assert [file.name for file in (tmp_path / "lora").glob("*.safetensors")] == ["pytorch_lora_weights.safetensors"]
    theirs = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    theirs.load_lora_weights(str(tmp_path / "lora"))
    parts = load_parts(base)
    parts.unet, parts.text_encoder = theirs.unet, theirs.text_encoder
    assert np.array_equal(sample(parts, ["melanoma"], [5], trained.sampling), image)


def test_the_merged_pipeline_gives_our_own_image(trained, tmp_path):
    image = trained.sample(["melanoma"], [5])
    trained.export(tmp_path / "pipeline", "diffusers")
    merged = load_parts(str(tmp_path / "pipeline"))
    assert not any("lora" in name for name in merged.unet.state_dict())
    assert np.abs(sample(merged, ["melanoma"], [5], trained.sampling).astype(int) - image).max() <= 1


def test_targets_that_match_nothing_are_refused(base):
    with pytest.raises(InputError, match=r"model\.lora\.targets"):
        DreamBooth(base, lora=LoRA(targets=["to_nothing"]))


def test_a_model_without_adapters_has_no_lora_to_export(base, tmp_path):
    with pytest.raises(InputError, match="no LoRA adapters"):
        DreamBooth(base).export(tmp_path / "lora", "lora")
