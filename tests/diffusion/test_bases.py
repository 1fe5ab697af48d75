"""Bases that are not there, not allowed or not supported: what is said, and that nothing else happens."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.encoders import BaseEncoders
from dermsynth.diffusion.parts import base_sha256, load_parts, tensors_sha256
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError
from tests.diffusion.test_dreambooth import data_of, trainer_of


@pytest.fixture
def copy(base, tmp_path):
    """A copy of the tiny pipeline to break."""
    return shutil.copytree(base, tmp_path / "copy")


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def hub(base, tmp_path, monkeypatch):
    """A Hugging Face hub on this machine that has one model, `someone/tiny`."""

    refusals = {"gated": (403, "GatedRepo"), "absent": (401, "RepoNotFound"), "empty": (404, "EntryNotFound")}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            _, _, name, *rest = self.path.split("/")
            file = Path(base, *rest[2:])
            code, error = refusals.get(name, (200, "") if file.is_file() else (404, "EntryNotFound"))
            content = file.read_bytes() if code == 200 else b""
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            for key, value in (("X-Error-Code", error), ("X-Repo-Commit", "0" * 40), ("ETag", f'"{len(content)}"')):
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815  (the name that the class asks for)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/gated", "someone/gated is gated. Accept its terms at https://huggingface.co/someone/gated"),
        ("someone/absent", "the Hugging Face hub has no model someone/absent, or it is private: log in"),
        ("someone/empty", "someone/empty has no model_index.json. Give a Stable Diffusion 1.x or 2.x pipeline"),
        ("some--one/x", "Give a Stable Diffusion 1.x or 2.x pipeline"),
    ],
)
def test_what_the_hub_refuses_is_said_plainly(hub, name, message):
    with pytest.raises(InputError, match=re.escape("model.base: ") + ".*" + re.escape(message)):
        load_parts(name)


def test_a_hub_that_is_not_to_be_asked_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("network"))
    with pytest.raises(InputError, match=r"someone/else is not in the cache .* \(`hf download someone/else`\)"):
        load_parts("someone/else")


def test_a_hub_id_gives_the_model_and_offline_it_comes_from_the_cache(base, hub, monkeypatch):
    local, parts = load_parts(base), load_parts("someone/tiny")
    expected = tensors_sha256(local.unet.parameters())
    assert tensors_sha256(parts.unet.parameters()) == expected
    with monkeypatch.context() as patch:  # what is loaded later, or hashed, is there by now
        patch.setattr("socket.socket.connect", lambda *a: pytest.fail("network"))
        assert base_sha256("someone/tiny") == base_sha256(base)
        assert BaseEncoders(parts, False).text_sha256 == BaseEncoders(local, False).text_sha256
        for part in ("vae", "text_encoder"):
            one, other = (tensors_sha256(getattr(p, part).parameters()) for p in (local, parts))
            assert one == other
    hub.shutdown()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert tensors_sha256(load_parts("someone/tiny").unet.parameters()) == expected


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "is a StableDiffusionXLPipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "is a StableDiffusionInpaintPipeline"),
        ("unet/config.json", {"in_channels": 9}, "has 9 channels in and 4 out, so it is an inpainting model"),
        ("unet/config.json", {"in_channels": 8}, "so it is a model that also takes another image"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "is one of Stable Diffusion XL"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type 'sample'"),
    ],
)
def test_other_kinds_of_models_are_refused_with_what_is_supported(copy, file, values, message):
    change(copy / file, **values)
    with pytest.raises(InputError, match=f"{message}.*(Give a Stable Diffusion 1.x or 2.x|are supported)"):
        DreamBooth(str(copy))


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_missing_file_is_named_or_its_part_is(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=rf"(model\.base: |/copy/).*{name.split('/')[0]}"):
        load_parts(str(copy))


def test_weights_that_could_run_code_are_not_read(copy):
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match=r"unet has its weights as \.bin, .* convert the folder"):
        load_parts(str(copy))


FILES = {
    "text_encoder": "text_encoder/model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda number, name, tensor: {f"x{name}": tensor}, r"lacks \d+ weights, such as "),
        (lambda number, name, tensor: {name: tensor} if number % 2 else {}, r"lacks \d+ weights, such as "),
        (lambda number, name, tensor: {name: tensor[:1]}, "could not be loaded: "),
        (lambda number, name, tensor: {name: tensor.to(torch.int8)}, r"is I8; expected float32"),
        (lambda number, name, tensor: {name: tensor * torch.nan}, r"(\d+) of \1 weights are NaN or infinite"),
    ],
)
@pytest.mark.parametrize("part", FILES)
@pytest.mark.filterwarnings("ignore:.*are not used")
def test_weights_that_are_not_there_or_are_no_weights_are_refused(copy, part, change, message):
    file = copy / FILES[part]
    changed = {}
    for number, (name, tensor) in enumerate(load_file(file).items()):
        changed |= change(number, name, tensor)
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"model\.base: the {part} of .*{message}"):
        getattr(load_parts(str(copy)), part)


def test_weights_that_are_not_used_are_said(copy):
    file = copy / FILES["unet"]
    save_file({**load_file(file), "odd": torch.ones(2)}, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"the unet of .*: 1 weights in its files are not used, such as odd"):
        load_parts(str(copy))


def test_sharded_weights_are_the_same_weights(base, copy):
    parts = load_parts(base)
    for part, file in FILES.items():
        (copy / file).unlink()
        getattr(parts, part).save_pretrained(copy / part, max_shard_size="20KB")
        assert len(list((copy / part).glob("*.safetensors"))) > 1
    sharded = load_parts(str(copy))
    for part in FILES:
        one, other = (tensors_sha256(getattr(p, part).parameters()) for p in (parts, sharded))
        assert one == other
    assert base_sha256(str(copy)) == base_sha256(base)
    index = copy / "unet/diffusion_pytorch_model.safetensors.index.json"
    change(index, weight_map={"conv_in.weight": "../vae/a.safetensors"})
    with pytest.raises(InputError, match="names no files beside it"):
        load_parts(str(copy))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet/config.json", {"sample_size": -8}, "sample_size of the unet of .* is -8; expected 0 or more"),
        ("unet/config.json", {"sample_size": None}, "sample_size of its UNet is None"),
        ("unet/config.json", {"sample_size": "8"}, "sample_size of its UNet is '8'"),
        ("unet/config.json", {"sample_size": 100000}, "sample_size of its UNet is 100000; expected a number from 1"),
        ("unet/config.json", {"norm_num_groups": 0}, "the unet of .* could not be loaded"),
        ("unet/config.json", {"norm_num_groups": -1}, "norm_num_groups of the unet of .* is -1; expected 0 or more"),
        ("vae/config.json", {"block_out_channels": [8, -8]}, r"block_out_channels of the vae of .* is \[8, -8\]"),
        ("unet/config.json", {"cross_attention_dim": 8}, "unet of .* could not be loaded|16 wide and its UNet takes 8"),
        ("vae/config.json", {"norm_num_groups": 0}, "the vae of .* could not be loaded"),
        ("vae/config.json", {"scaling_factor": "x"}, "scaling_factor of its VAE is 'x'"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor of its VAE is None"),
        ("vae/config.json", {"scaling_factor": float("nan")}, "scaling_factor of its VAE is nan"),
        ("vae/config.json", {"latent_channels": 8}, "its VAE has 8 channels and its UNet takes 4"),
        ("text_encoder/config.json", {"num_attention_heads": 0}, "the text_encoder of .* could not be loaded"),
        ("text_encoder/config.json", {"hidden_act": "bogus"}, "the text_encoder of .* could not be loaded: 'bogus'"),
        ("text_encoder/config.json", {"vocab_size": 9}, "words and its text encoder 9"),
        ("text_encoder/config.json", [], "holds a list; expected an object"),
        ("scheduler/scheduler_config.json", {"beta_start": float("nan")}, "make no noise schedule"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "noise schedule|scheduler of .* not be loaded"),
        ("tokenizer/tokenizer.json", [], "the tokenizer of .* could not be loaded"),
        ("tokenizer/tokenizer_config.json", [], "the tokenizer of .* could not be loaded"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 0}, "model_max_length of its tokenizer is 0"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "x"}, "model_max_length of its tokenizer is 'x'"),
        ("dermsynth.json", {"train_split_sha256": 7}, r"dermsynth\.json: train_split_sha256 is '7'; expected a text"),
    ],
)
def test_configurations_that_make_no_pipeline_are_refused(copy, file, values, message):
    if values == []:
        (copy / file).write_text("[]")
    else:
        change(copy / file, **values)
    with pytest.raises(InputError, match=message) as error:
        load_parts(str(copy))
    assert "\n" not in str(error.value)


def test_ctrl_c_while_a_base_loads_is_no_broken_file(base, monkeypatch):
    def interrupted(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise OSError("Unable to load weights from checkpoint file")  # noqa: B904  (as diffusers does)

    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_parts(base)


def overflowing(copy, name):
    """Make a layer of the VAE give numbers that float32 holds and float16 does not."""
    file = copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights[name] = weights[name] * 1e6
    save_file(weights, file, metadata={"format": "pt"})
    return str(copy)


@pytest.mark.parametrize(("precision", "works"), [("32-true", True), ("bf16-true", True), ("16-true", False)])
def test_a_vae_that_is_broken_in_half_precision_is_found_at_its_first_use(copy, sets, tmp_path, precision, works):
    model = DreamBooth(overflowing(copy, "encoder.conv_in.weight"))
    trainer = trainer_of(tmp_path, 1, precision=precision, limit_val_batches=0)
    if works:
        trainer.fit(model, data_of(sets))
        return
    with pytest.raises(InputError, match=r"the VAE of .*copy gives NaN or infinity in float16\. Give --trainer"):
        trainer.fit(model, data_of(sets))


def test_images_of_nan_are_no_images(copy):
    model = DreamBooth(overflowing(copy, "decoder.conv_in.weight"), sampling=Sampling(1, 1.0))
    assert model.sample(["melanoma"], [1]).shape == (1, 16, 16, 3)
    with pytest.raises(InputError, match=r"model\.base: its images are NaN\. If its VAE"):
        model.half().sample(["melanoma"], [1])
