"""Extractors by their names, against what the networks themselves give."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextModel,
    ViTConfig,
    ViTModel,
)

from dermsynth.audit.features import best_checkpoint, find_extractor
from dermsynth.audit.seen import see
from dermsynth.audit.sides import read_sides, square
from dermsynth.cli import main
from dermsynth.data.sets import manifest
from dermsynth.data.sets.images import read_rgb
from dermsynth.diffusion.parts import load_parts
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def pixels(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def save(model, folder):
    torch.manual_seed(0)
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


@torch.inference_mode()
def test_a_vision_transformer_gives_its_pooled_output(tmp_path):
    model = save(ViTModel(ViTConfig(**SMALL)), tmp_path)
    extractor = find_extractor(str(tmp_path))
    assert (extractor.name, extractor.size) == (tmp_path.name, 32)
    expected = model(pixel_values=pixels(IMAGES)).pooler_output
    assert extractor(IMAGES) == pytest.approx(expected.numpy(), abs=1e-5)


@torch.inference_mode()
def test_without_a_pooling_layer_it_is_the_mean_over_patches(tmp_path):
    model = save(ViTModel(ViTConfig(**SMALL), add_pooling_layer=False), tmp_path)
    expected = model(pixel_values=pixels(IMAGES)).last_hidden_state.mean(dim=1)
    assert find_extractor(str(tmp_path))(IMAGES) == pytest.approx(expected.numpy(), abs=1e-5)


@torch.inference_mode()
def test_a_convolutional_network(tmp_path):
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32)
    model = save(ConvNextModel(config), tmp_path)
    expected = model(pixel_values=pixels(IMAGES)).pooler_output
    assert find_extractor(str(tmp_path))(IMAGES) == pytest.approx(expected.numpy(), abs=1e-5)


@torch.inference_mode()
def test_a_model_of_images_and_texts_gives_its_embedding_of_the_image(tmp_path):
    text = CLIPTextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = save(
        CLIPModel(CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**SMALL), projection_dim=6)), tmp_path
    )
    embedded = model.vision_model(pixel_values=pixels(IMAGES)).pooler_output
    expected = model.visual_projection(embedded)
    assert find_extractor(str(tmp_path))(IMAGES) == pytest.approx(expected.numpy(), abs=1e-5)


@torch.inference_mode()
def test_an_autoencoder_gives_its_mean_latents(base):
    extractor = find_extractor(base)
    assert extractor.size == 16
    images = IMAGES[:, :16, :16]
    expected = load_parts(base).vae.encode(pixels(images)).latent_dist.mean.flatten(1)
    assert extractor(images) == pytest.approx(expected.numpy(), abs=1e-5)


def test_tiny_needs_no_download():
    extractor = find_extractor("tiny")
    assert (extractor.name, extractor.size) == ("autoencoder of tiny", 64)


def test_a_classifier_gives_what_its_last_layer_takes(tmp_path):
    network = ", ".join(f"{key}: {value}" for key, value in {**SMALL, "image_size": 16}.items())
    words = [
        "fit",
        "--run",
        str(tmp_path / "run"),
        "--model",
        "Classifier",
        "--model.model",
        f"{{model_type: vit, {network}}}",
    ]
    words += ["--data", "ClassificationData", "--data.real", str(make_set(tmp_path / "set")), "--data.size", "16"]
    words += ["--data.classes", f"[{', '.join(CLASSES)}]", "--data.batch_size", "4", "--trainer.max_steps", "1"]
    words += ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    assert main(words) == 0
    extractor = find_extractor(str(tmp_path / "run"))
    assert (extractor.name, extractor.size) == ("last features of run", 16)
    model = extractor._model
    images = IMAGES[:, :16, :16]
    with torch.inference_mode():
        features = extractor(images)
        assert features.shape == (3, 16)
        assert model.model.classifier(features) == pytest.approx(model(pixels(images)).numpy(), abs=1e-5)
        assert extractor(images[:1]).shape == (1, 16)


def test_the_best_checkpoint_of_a_run_else_the_last(tmp_path):
    with pytest.raises(InputError, match="no checkpoint in it"):
        best_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "checkpoints" / name).touch()
        assert best_checkpoint(tmp_path).name == name


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "/nowhere"])
def test_a_folder_that_is_not_there_asks_no_network(name):
    with pytest.raises(InputError, match="--features: no folder"):
        find_extractor(name)


def test_features_are_those_of_the_images_in_their_order(tmp_path):
    real = make_set(tmp_path / "real", size=70)
    generated = make_set(tmp_path / "made", origin="synthetic", split="train", size=70)
    _, originals = read_sides([generated], real)

    class Mean:
        name, size = "mean colour", 64

        def __call__(self, images):
            return torch.from_numpy(images.mean(axis=(1, 2)))

    side = originals.of_split("train")
    seen = see(side, Mean(), all_views=True)
    expected = [square(read_rgb(path), 64).mean(axis=(0, 1)) for path in side.paths]
    assert seen.features == pytest.approx(np.array(expected), abs=1e-3)
    assert seen.views.shape == (8, 12, 3)
    assert seen.views[5] == pytest.approx(seen.features, abs=1e-3)
    assert len(seen.centres) == len(manifest.read(real).split("train")) == 12


def test_features_that_are_not_finite_are_refused(tmp_path):
    _, originals = read_sides(
        [make_set(tmp_path / "made", origin="synthetic", split="train")], make_set(tmp_path / "r")
    )

    class Broken:
        name, size = "broken", 16

        def __call__(self, images):
            return torch.full((len(images), 2), torch.nan)

    with pytest.raises(InputError, match="--features broken: some features are NaN"):
        see(originals, Broken())
