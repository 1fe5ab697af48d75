import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA, add_lora, merge_lora
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.parts import build_parts, load_parts
from dermsynth.diffusion.sampling import Sampling, sample
from dermsynth.errors import InputError

HOW = Sampling(3, 2.0)
# A linear layer, one whose name ends in a number, convolutions of 1 and of 3 pixels.
TARGETS = ["to_q", "to_out.0", "proj_in", "conv1"]


@pytest.fixture(params=["lora", "dora"])
def kind(request):
    return request.param


@pytest.fixture(params=["frozen text", "trained text"])
def trained(base, kind, request):
    """A module whose adapters are as if trained: no factor is zero any more, no row as long as it was."""
    lora = LoRA(rank=2, alpha=4, targets=TARGETS, use_dora=kind == "dora")
    model = DreamBooth(base, lora=lora, train_text_encoder=request.param == "trained text", sampling=HOW).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
            if "lora_magnitude_vector" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return model


def image_with(base, path):
    """What diffusers makes of a LoRA file."""
    theirs = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    theirs.load_lora_weights(str(path))
    parts = load_parts(base)
    parts.unet, parts.text_encoder = theirs.unet, theirs.text_encoder
    return sample(parts, ["melanoma"], [5], HOW)


def updates(base, model):
    """Merged minus base weights, by module name, of the layers that changed."""
    before = load_parts(base)
    merge_lora(model.parts)
    found = {}
    for part in ("unet", "text_encoder"):
        new, old = (dict(getattr(parts, part).named_parameters()) for parts in (model.parts, before))
        assert new.keys() == old.keys()
        changed = {name for name in new if not torch.equal(new[name], old[name])}
        found |= {f"{part}.{name.removesuffix('.weight')}": (old[name], new[name] - old[name]) for name in changed}
    return found


def test_the_exported_file_gives_our_own_image_in_diffusers(base, trained, tmp_path):
    image = trained.sample(["melanoma"], [5])
    plain = sample(load_parts(base), ["melanoma"], [5], HOW)
    assert np.abs(image.astype(int) - plain).max() > 3
    trained.export(tmp_path / "lora", "lora")
    assert [file.name for file in (tmp_path / "lora").iterdir()] == ["pytorch_lora_weights.safetensors"]
    assert np.array_equal(image_with(base, tmp_path / "lora"), image)


def test_the_merged_pipeline_gives_our_own_image(trained, tmp_path):
    image = trained.sample(["melanoma"], [5])
    trained.export(tmp_path / "pipeline", "diffusers")
    merged = load_parts(str(tmp_path / "pipeline"))
    assert not any("lora" in name for name in merged.unet.state_dict())
    # Adding the updates to the weights rounds otherwise than adding what they give.
    assert np.abs(sample(merged, ["melanoma"], [5], HOW).astype(int) - image).max() <= 1


def test_kohyas_file_holds_the_same_updates(base, trained, kind, tmp_path):
    (tmp_path / "out").mkdir()
    trained.export(tmp_path / "out", "kohya")
    tensors = load_file(tmp_path / "out/lora.safetensors")
    modules = {key.partition(".")[0] for key in tensors}
    expected = updates(base, trained)
    assert len(modules) == len(expected) > 5
    for name, (old, update) in expected.items():
        part, _, layer = name.partition(".")
        prefix = "lora_unet" if part == "unet" else "lora_te_text_model"
        key = f"{prefix}_{layer.removeprefix('text_model.').replace('.', '_')}"
        down, up, alpha = (tensors[f"{key}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert (alpha.shape, float(alpha), down.shape[0]) == ((), 4.0, 2)
        product = torch.einsum("or,r...->o...", up.flatten(1), down) * alpha / 2
        if kind == "dora":
            rows = (old + product).flatten(1).norm(dim=1).reshape(-1, *[1] * (old.dim() - 1))
            product = tensors[f"{key}.dora_scale"] / rows * (old + product) - old
        torch.testing.assert_close(product, update, atol=1e-5, rtol=1e-4)
    assert {key.rpartition(".")[2] for key in tensors} == {"weight", "alpha"} | (
        {"dora_scale"} if kind == "dora" else set()
    )


def test_kohyas_keys_are_those_of_its_scripts(base, tmp_path):
    model = DreamBooth(base, lora=LoRA(2, 2), train_text_encoder=True)
    model.export(tmp_path, "kohya")
    keys = load_file(tmp_path / "lora.safetensors").keys()
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight" in keys
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q.lora_up.weight" in keys
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in keys


@pytest.mark.parametrize("kind", ["lora"], indirect=True)
def test_kohyas_file_gives_our_own_image_in_diffusers(base, trained, tmp_path):
    image = trained.sample(["melanoma"], [5])
    trained.export(tmp_path, "kohya")
    assert np.array_equal(image_with(base, tmp_path / "lora.safetensors"), image)


def test_adapters_of_another_schedule_bring_it_along(base, tmp_path):
    objective = Objective(prediction_type="v_prediction", zero_terminal_snr=True)
    DreamBooth(base, lora=LoRA(), objective=objective).export(tmp_path / "lora", "lora")
    theirs = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    scheduler = type(theirs.scheduler).load_config(tmp_path / "lora", subfolder="scheduler")
    assert (scheduler["_class_name"], scheduler["prediction_type"]) == ("DDIMScheduler", "v_prediction")
    assert (scheduler["rescale_betas_zero_snr"], scheduler["timestep_spacing"]) == (True, "trailing")


@pytest.mark.parametrize("use_dora", [False, True])
def test_adapters_of_convolutions_train_and_are_exported_in_either_memory_order(base, tmp_path, use_dora):
    model = DreamBooth(base, lora=LoRA(2, 2, TARGETS, use_dora), channels_last=True)
    assert not model.unet.conv_in.weight.is_contiguous()
    model.unet.train()
    model.unet(torch.randn(2, 4, 8, 8), 7, torch.randn(2, 77, 16)).sample.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)
    model.unet.to(memory_format=torch.channels_last)  # as whoever has the module may do
    model.export(tmp_path, "lora")
    model.export(tmp_path, "kohya")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["to_nothing"]}, r"model\.lora\.targets"),
        ({"targets": []}, r"model\.lora\.targets: name at least one layer"),
        ({"rank": 0}, r"model\.lora\.rank: 0 must be from 1"),
        ({"alpha": 0}, r"model\.lora\.alpha: 0 must be above 0"),
    ],
)
def test_adapters_that_cannot_be_are_refused(base, options, message):
    with pytest.raises(InputError, match=message):
        DreamBooth(base, lora=LoRA(**options))


@pytest.mark.parametrize("format", ["lora", "kohya"])
def test_a_model_without_adapters_has_no_lora_to_export(base, tmp_path, format):
    with pytest.raises(InputError, match=f"--format {format}: .* no LoRA adapters"):
        DreamBooth(base).export(tmp_path / "lora", format)


@pytest.mark.real_data
def test_adapters_of_stable_diffusion_1_5_are_three_megabytes(real_models):
    with torch.device("meta"):
        parts = build_parts(real_models / "stable-diffusion-v1-5", texts=[])
        add_lora(parts, LoRA(rank=4), text_encoder=False)
    trained = [parameter for parameter in parts.unet.parameters() if parameter.requires_grad]
    # The number that diffusers' own LoRA example trains; AdamW's two averages make it three times as much on disk.
    assert sum(parameter.numel() for parameter in trained) == 797_184
    assert sum(parameter.nbytes for parameter in trained) < 3.2e6
