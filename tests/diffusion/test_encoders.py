import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from dermsynth import weights as weights_room
from dermsynth.diffusion.encoders import BaseEncoders, draw_latents, drop_prompts
from dermsynth.diffusion.parts import base_sha256, file_sha256, load_parts, tensors_sha256

CPU = torch.device("cpu")


def loaded(parts):
    return {"vae", "text_encoder"} & set(vars(parts))


def test_nothing_is_loaded_before_it_is_needed_and_all_can_be_let_go(base):
    parts = load_parts(base)
    encoders = BaseEncoders(parts, train_text_encoder=False)
    assert encoders.vae_sha256 != encoders.text_sha256
    assert len(base_sha256(base)) == 64
    assert parts.scaling_factor == 0.5
    assert not loaded(parts)
    encoders.moments(torch.zeros(1, 3, 16, 16))
    assert loaded(parts) == {"vae"}
    encoders.embeddings(["melanoma"], CPU)
    assert loaded(parts) == {"vae", "text_encoder"}
    encoders.release()
    assert not loaded(parts)


def test_a_trained_text_encoder_is_not_let_go_and_has_no_hash(base):
    parts = load_parts(base)
    trained = parts.text_encoder
    encoders = BaseEncoders(parts, train_text_encoder=True)
    assert encoders.text_sha256 is None
    assert encoders.embeddings(["melanoma"], CPU).requires_grad
    encoders.moments(torch.zeros(1, 3, 16, 16))
    encoders.release()
    assert loaded(parts) == {"text_encoder"}
    assert parts.text_encoder is trained


def test_the_hash_of_a_file_is_that_of_the_model_made_of_it(base):
    parts = load_parts(base)
    assert file_sha256(base, "vae") == tensors_sha256(parts.vae.parameters())
    assert file_sha256(base, "text_encoder") == tensors_sha256(parts.text_encoder.parameters())
    assert file_sha256(base, "vae") != file_sha256(base, "text_encoder")


@pytest.fixture
def changed(base, tmp_path):
    """A copy of the base in which something is changed, and its encoders."""

    def make(part, change_weights=None, change_config=None):
        folder = shutil.copytree(base, tmp_path / "copy")
        weights, config = next((folder / part).glob("*.safetensors")), folder / part / "config.json"
        if change_weights:
            tensors = load_file(weights)
            change_weights(tensors)
            save_file(tensors, weights, {"format": "pt"})
        if change_config:
            config.write_text(json.dumps({**json.loads(config.read_text()), **change_config}))
        return BaseEncoders(load_parts(str(folder)), train_text_encoder=False)

    return make


def hashes(encoders):
    return encoders.vae_sha256, encoders.text_sha256, base_sha256(encoders._parts.base)


def nudge(tensors):
    next(iter(tensors.values())).view(-1)[0] += 1e-3


def rename(tensors):
    for name in list(tensors):
        tensors[f"old.{name}"] = tensors.pop(name)
    tensors["position_ids"] = torch.arange(77)


@pytest.mark.parametrize(
    ("part", "change", "differ"),
    [
        ("vae", {}, (False, False, False)),
        ("vae", {"change_weights": nudge}, (True, False, True)),
        ("vae", {"change_config": {"scaling_factor": 0.25}}, (True, False, False)),
        ("vae", {"change_config": {"_diffusers_version": "9"}}, (False, False, False)),
        ("text_encoder", {"change_weights": nudge}, (False, True, True)),
        ("text_encoder", {"change_config": {"hidden_act": "gelu"}}, (False, True, False)),
        ("text_encoder", {"change_config": {"transformers_version": "9"}}, (False, False, False)),
    ],
)
def test_hashes_tell_models_apart_and_not_copies(base, changed, part, change, differ):
    ours, theirs = hashes(BaseEncoders(load_parts(base), False)), hashes(changed(part, **change))
    assert tuple(a != b for a, b in zip(ours, theirs, strict=True)) == differ


def test_files_with_old_names_have_the_same_hash(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "copy")
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    rename(tensors)
    save_file(tensors, file)
    assert file_sha256(str(folder), "text_encoder") == file_sha256(base, "text_encoder")


def test_a_file_is_read_once_and_again_when_it_has_changed(base, tmp_path, monkeypatch):
    folder = shutil.copytree(base, tmp_path / "copy")
    before = file_sha256(str(folder), "vae")
    with monkeypatch.context() as patch:
        patch.setattr(weights_room, "safe_open", lambda *a: pytest.fail("read again"))
        assert file_sha256(str(folder), "vae") == before
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    nudge(tensors)
    save_file(tensors, file)
    assert file_sha256(str(folder), "vae") != before


def test_another_tokenizer_is_noticed(base):
    parts, other = load_parts(base), load_parts(base)
    other.tokenizer.add_tokens(["zyq"])
    assert BaseEncoders(parts, False).text_sha256 != BaseEncoders(other, False).text_sha256
    assert BaseEncoders(parts, False).vae_sha256 == BaseEncoders(other, False).vae_sha256


def test_a_tokenizer_with_other_merges_is_noticed_and_one_that_was_used_is_not(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "copy")
    file = folder / "tokenizer/tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"].reverse()  # the same words, put together otherwise
    file.write_text(json.dumps(content))
    parts, other = load_parts(base), load_parts(str(folder))
    assert parts.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    before = BaseEncoders(parts, False).text_sha256
    assert BaseEncoders(other, False).text_sha256 != before
    parts.tokenize(["melanoma"])
    assert BaseEncoders(parts, False).text_sha256 == before


def test_moments_are_those_of_the_autoencoder_and_latents_are_drawn_from_them(base):
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    moments = BaseEncoders(load_parts(base), False).moments(pixels)
    vae = AutoencoderKL.from_pretrained(Path(base) / "vae").requires_grad_(False)
    posterior = vae.encode(pixels).latent_dist
    assert torch.equal(moments, posterior.parameters)
    noise = torch.randn(3, 4, 8, 8)
    expected = (moments[:, :4] + torch.exp(moments[:, 4:] / 2) * noise) * 0.5
    torch.testing.assert_close(draw_latents(moments, noise, 0.5), expected)
    half = draw_latents(moments.half(), noise, 0.5)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=2e-3, rtol=2e-3)


def test_many_draws_have_the_moments_mean_and_deviation():
    moments = torch.cat([torch.full((1, 4, 1, 1), 3.0), torch.full((1, 4, 1, 1), 0.25).log()], dim=1)
    draws = draw_latents(moments.expand(20_000, -1, 1, 1), torch.randn(20_000, 4, 1, 1), 2.0)
    assert float(draws.mean()) == pytest.approx(6, abs=0.02)
    assert float(draws.std()) == pytest.approx(1, abs=0.02)


def test_dropped_prompts_and_their_embeddings_are_those_of_the_empty_one():
    batch = {
        "prompt": ["a", "b", "c"],
        "prompt_embeds": torch.ones(3, 2, 2),
        "empty_embeds": torch.zeros(2, 2),
        "label": 7,
    }
    dropped = drop_prompts(batch, torch.tensor([True, False, True]))
    assert dropped["prompt"] == ["a", "", "c"]
    assert dropped["prompt_embeds"].sum(dim=(1, 2)).tolist() == [4, 0, 4]
    assert dropped["label"] == 7
    assert batch["prompt"][1] == "b"
    assert set(drop_prompts({"prompt": ["a"]}, torch.tensor([False]))) == {"prompt"}


def test_what_was_loaded_in_inference_mode_serves_training(base):
    encoders = BaseEncoders(load_parts(base), False)
    with torch.inference_mode():
        encoders.make_ready(CPU, torch.float64)
    weight = torch.ones(4, 1, 1, requires_grad=True)
    (encoders.moments(torch.zeros(1, 3, 16, 16), torch.float64)[:, :4] * weight).sum().backward()
    assert weight.grad.isfinite().all()
    embeddings = encoders.embeddings(["melanoma"], CPU, torch.float32)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    assert not embeddings.is_inference()


def test_a_copy_of_the_module_has_encoders_of_its_own(base):
    parts = load_parts(base)
    both = copy.deepcopy({"parts": parts, "encoders": BaseEncoders(parts, False)})
    both["encoders"].moments(torch.zeros(1, 3, 16, 16))
    assert loaded(both["parts"]) == {"vae"}
    assert not loaded(parts)
