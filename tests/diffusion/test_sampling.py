import math
from typing import get_args

import numpy as np
import pytest
import torch

from dermsynth.diffusion.parts import load_parts
from dermsynth.diffusion.sampling import PromptEmbeddings, Sampling, SchedulerName, _sampler, sample
from dermsynth.errors import InputError


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "ddim", "euler", "euler_a", "pndm"])
def test_an_image_depends_on_its_prompt_and_seed_and_not_on_its_batch(base, scheduler):
    parts = load_parts(base)
    how = Sampling(steps=4, guidance_scale=3.0, scheduler=scheduler)
    prompts = ["a dermoscopic image of melanoma", "a dermoscopic image of nevus"]
    both = sample(parts, prompts, [11, 12], how)
    assert both.shape == (2, 16, 16, 3)
    assert both.dtype == np.uint8
    alone = sample(parts, prompts[1:], [12], how)
    # Batched arithmetic may round differently in the last bit.
    assert np.abs(alone[0].astype(int) - both[1]).max() <= 1
    assert np.abs(sample(parts, prompts[1:], [13], how)[0].astype(int) - both[1]).max() > 1


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_are_those_of_diffusers_pipeline(base, scheduler, guidance):
    parts, prompts, seeds = load_parts(base), ["melanoma", "nevus", "melanoma"], [11, 12, 13]
    how = Sampling(5, guidance, scheduler, negative_prompt="keratosis")
    pipeline = parts.pipeline(_sampler(parts, how))
    images = pipeline(
        prompts,
        negative_prompt=["keratosis"] * 3,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    assert np.array_equal(sample(parts, prompts, seeds, how), (images * 255).round().astype(np.uint8))


def test_each_image_has_the_guidance_that_its_seed_draws(base):
    parts, prompts = load_parts(base), ["melanoma", "nevus", "melanoma"]
    how = Sampling(4, (1.0, 9.0))
    scales = [how.guidance(seed) for seed in (1, 2, 3)]
    images = sample(parts, prompts, [1, 2, 3], how)
    for image, prompt, seed, scale in zip(images, prompts, (1, 2, 3), scales, strict=True):
        (alone,) = sample(parts, [prompt], [seed], Sampling(4, scale))
        assert np.abs(alone.astype(int) - image).max() <= 1
    many = [how.guidance(seed) for seed in range(2000)]
    assert min(many) < 1.1
    assert max(many) > 8.9
    assert abs(np.mean(many) - 5) < 0.25
    assert all(scale == round(scale, 2) for scale in many)
    assert Sampling(4, (1.234, 1.236)).guidance(1) in (1.234, 1.236)


@pytest.mark.parametrize("scale", [(0.5, 2.0), (3.0, 2.0), (2.0, math.inf), (math.nan, 3.0), (2.0, math.nan)])
def test_a_range_of_no_sense_is_refused(scale):
    with pytest.raises(InputError, match=r"model\.sampling\.guidance_scale: .* two numbers from 1|at least 1"):
        Sampling(5, scale)


def test_a_prompt_is_embedded_once(base):
    parts, how = load_parts(base), Sampling(1, 2.0, negative_prompt="nevus")
    calls = []
    parts.text_encoder.register_forward_hook(lambda *arguments: calls.append(1))
    embed = PromptEmbeddings(parts)
    for seed in (0, 2):
        sample(parts, ["melanoma", "nevus"], [seed, seed + 1], how, embed=embed)
    assert len(calls) == 2


def test_images_that_are_nan_are_refused_or_drawn_in_black_with_a_warning(base):
    parts, how = load_parts(base), Sampling(1, 1.0)
    decode = parts.vae.decode
    fine = sample(parts, ["melanoma", "nevus"], [1, 2], how)

    def second_broken(*args, **kwargs):
        (images,) = decode(*args, **{**kwargs, "return_dict": False})
        images[1, 0, 3] = torch.nan
        return (images,)

    parts.vae.decode = second_broken
    with pytest.raises(InputError, match=r"model\.base: its images are NaN"):
        sample(parts, ["melanoma", "nevus"], [1, 2], how)
    with pytest.warns(UserWarning, match="1 of 2 sampled images are NaN and shown in black"):
        images = sample(parts, ["melanoma", "nevus"], [1, 2], how, black_if_nan=True)
    assert np.array_equal(images[0], fine[0])
    assert not images[1].any()


@pytest.mark.parametrize(("steps", "scale"), [(0, 2.0), (5, 0.5)])
def test_settings_that_draw_nothing_are_refused(steps, scale):
    with pytest.raises(InputError, match=r"model\.sampling\.(steps|guidance_scale)"):
        Sampling(steps, scale)


def test_guidance_of_one_ignores_the_negative_prompt_and_more_does_not(base):
    parts = load_parts(base)

    def image(scale, negative):
        return sample(parts, ["melanoma"], [1], Sampling(4, scale, negative_prompt=negative))

    assert np.array_equal(image(1.0, ""), image(1.0, "nevus"))
    assert not np.array_equal(image(5.0, ""), image(5.0, "nevus"))
