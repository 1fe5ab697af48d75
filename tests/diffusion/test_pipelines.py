"""Whole pipelines of several kinds, trained, exported and opened by diffusers: the image is our own, bit for bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.parts import build_parts, load_parts, save_pipeline
from dermsynth.diffusion.sampling import Sampling, sample
from dermsynth.errors import InputError
from tests.builders import make_configs
from tests.diffusion.test_dreambooth import data_of, trainer_of


@pytest.fixture(scope="module")
def sd2(tmp_path_factory):
    """Stable Diffusion 2.1 in small: v-prediction, an OpenCLIP text encoder, heads by width, linear projections."""
    root = tmp_path_factory.mktemp("sd2")
    configs = make_configs(root / "configs")
    changes = {
        "unet/config.json": {"attention_head_dim": [1, 2], "use_linear_projection": True, "upcast_attention": True},
        "text_encoder/config.json": {"hidden_act": "gelu", "projection_dim": 8, "num_attention_heads": 4},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    }
    for name, values in changes.items():
        content = json.loads((configs / name).read_text())
        (configs / name).write_text(json.dumps({**content, "set_alpha_to_one": False, **values}))
    save_pipeline(build_parts(configs, ["a dermoscopic image of sks melanoma nevus keratosis"]), root / "base", {})
    return str(root / "base")


def optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, alpha=2)], ids=["full", "lora"])
def test_of_stable_diffusion_2_the_name_is_enough(sd2, sets, tmp_path, lora):
    model = DreamBooth(sd2, True, lora=lora, optimizer=optimizer, sampling=Sampling(3, 2.0, "ddim"))
    assert model.parts.scheduler.config.prediction_type == "v_prediction"
    trainer_of(tmp_path, 4, limit_val_batches=0).fit(model, data_of(sets))
    model.eval()
    before = sample(load_parts(sd2), ["melanoma"], [5], model.sampling)
    model.export(tmp_path / "out", "diffusers")
    assert sampler_of(tmp_path / "out").items() >= {**sampler_of(sd2), "_class_name": "DDIMScheduler"}.items()
    image = model.sample(["melanoma"], [5])
    assert not np.array_equal(image, before)
    assert np.array_equal(theirs(tmp_path / "out"), image)


def sampler_of(folder):
    """What a pipeline says of its scheduler."""
    content = json.loads((Path(folder) / "scheduler/scheduler_config.json").read_text())
    return {key: value for key, value in content.items() if isinstance(value, str | int | float)}


@pytest.mark.parametrize(
    ("shipped", "exported"),
    [(name, name) for name in ("PNDMScheduler", "EulerDiscreteScheduler")] + [("Own", "DDIMScheduler")],
)
def test_a_base_keeps_the_kind_of_sampler_that_it_came_with(base, tmp_path, shipped, exported):
    folder = shutil.copytree(base, tmp_path / "base")
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": shipped}))
    parts = load_parts(str(folder))
    assert type(parts.scheduler) is DDPMScheduler  # for training
    save_pipeline(parts, tmp_path / "out", {})
    assert sampler_of(tmp_path / "out")["_class_name"] == exported
    assert theirs(tmp_path / "out").std() > 0


def theirs(folder):
    """What diffusers makes of an exported folder, with the scheduler that lies in it."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generator = [torch.Generator().manual_seed(5)]
    images = pipeline(["melanoma"], num_inference_steps=3, guidance_scale=2.0, generator=generator, output_type="np")
    return (images.images * 255).round().astype(np.uint8)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_an_exported_pipeline_gives_our_own_image(base, sets, tmp_path, text_encoder):
    model = DreamBooth(base, text_encoder, optimizer=optimizer, sampling=Sampling(3, 2.0, "pndm"))
    trainer_of(tmp_path, 2, limit_val_batches=0).fit(model, data_of(sets))
    model.eval().export(tmp_path / "out", "diffusers")
    assert np.array_equal(theirs(tmp_path / "out"), model.sample(["melanoma"], [5]))


ZERO_SNR = Objective(prediction_type="v_prediction", zero_terminal_snr=True)


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "euler", "euler_a"])
def test_zero_terminal_snr_samples_from_the_last_step(base, scheduler):
    model = DreamBooth(base, objective=ZERO_SNR, sampling=Sampling(4, 2.0, scheduler)).eval()
    seen = []
    model.unet.register_forward_pre_hook(lambda module, arguments: seen.append(float(arguments[1])))
    assert model.sample(["melanoma"], [5]).std() > 0
    assert seen[0] == 999
    with pytest.raises(InputError, match=r"model\.sampling\.scheduler: pndm cannot start"):
        sample(model.parts, ["melanoma"], [5], Sampling(4, 2.0, "pndm"))


def test_zero_terminal_snr_is_exported_and_goes_on_from_there(base, sets, tmp_path):
    model = DreamBooth(base, objective=ZERO_SNR, optimizer=optimizer, sampling=Sampling(3, 2.0, "ddim"))
    trainer = trainer_of(tmp_path, 2, limit_val_batches=0)
    trainer.fit(model, data_of(sets))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
    with pytest.raises(InputError, match="made with zero_terminal_snr True, the configuration has False"):
        DreamBooth(base, objective=Objective(prediction_type="v_prediction")).on_load_checkpoint(saved)
    model.eval().export(tmp_path / "out", "diffusers")
    scheduler = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    assert (scheduler["rescale_betas_zero_snr"], scheduler["timestep_spacing"]) == (True, "trailing")
    assert np.array_equal(theirs(tmp_path / "out"), model.sample(["melanoma"], [5]))
    again = DreamBooth(str(tmp_path / "out"))
    assert torch.equal(again.alphas_cumprod, model.alphas_cumprod)
    assert again.alphas_cumprod[-1] == 0
    with pytest.raises(InputError, match=r"snr_gamma: it gives the last step"):
        DreamBooth(str(tmp_path / "out"), objective=Objective(snr_gamma=5.0))
