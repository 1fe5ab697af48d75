import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from dermsynth.diffusion import objective
from dermsynth.diffusion.lora import LoRA
from dermsynth.diffusion.objective import Objective
from dermsynth.diffusion.sampling import Sampling
from dermsynth.errors import InputError

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
ZERO_SNR = {"prediction_type": "v_prediction", "zero_terminal_snr": True}


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 250, 700, 999])


def test_noise_and_velocity_agree_with_diffusers(drawn):
    latents, noise, timesteps = drawn
    alphas = SCHEDULER.alphas_cumprod
    noisy = objective.add_noise(alphas, latents, noise, timesteps)
    assert torch.equal(noisy, SCHEDULER.add_noise(latents, noise, timesteps))
    velocity = objective.target("v_prediction", alphas, latents, noise, timesteps)
    assert torch.equal(velocity, SCHEDULER.get_velocity(latents, noise, timesteps))
    assert torch.equal(objective.target("epsilon", alphas, latents, noise, timesteps), noise)


def test_half_precision_latents_keep_a_thousand_noise_levels():
    ones = torch.ones(1000, 1, 1, 1, dtype=torch.bfloat16)
    levels = objective.add_noise(SCHEDULER.alphas_cumprod, ones, torch.zeros_like(ones), torch.arange(1000))
    assert levels.dtype == torch.float32
    assert len(levels.unique()) == 1000


@pytest.mark.parametrize("prior", [[0, 1, 0, 1, 1], [0] * 5, [1] * 5])
def test_loss_is_the_published_sum_of_two_means(prior):
    rng = np.random.default_rng(0)
    prediction, wanted = rng.normal(size=(2, 5, 4, 8, 8)).astype(np.float32)
    mask = np.array(prior, dtype=bool)
    expected = 0.0
    if (~mask).any():
        expected += np.mean((prediction[~mask] - wanted[~mask]) ** 2)
    if mask.any():
        expected += 0.3 * np.mean((prediction[mask] - wanted[mask]) ** 2)
    errors = objective.sample_errors(torch.tensor(prediction), torch.tensor(wanted))
    loss = objective.dreambooth_loss(errors, torch.tensor(mask), 0.3)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_formula_and_of_diffusers(kind):
    alphas, steps = SCHEDULER.alphas_cumprod, torch.arange(1000)
    weights = objective.snr_weights(kind, alphas, steps, 5.0)
    snr = compute_snr(SCHEDULER, steps)
    assert torch.allclose(weights, torch.minimum(snr, torch.tensor(5.0)) / (snr + (kind == "v_prediction")), rtol=1e-4)
    # Hang et al. weigh the error of the clean latents by min(SNR, 5), whatever is predicted: ε's error is that error
    # times SNR, v's is that error times (SNR + 1).
    back = weights * (snr if kind == "epsilon" else snr + 1)
    assert torch.allclose(back, snr.clamp(max=5), rtol=1e-4)
    assert weights[0] < 0.01
    assert weights[999] == pytest.approx(1.0 if kind == "epsilon" else float(snr[999]), rel=0.01)


def test_debiased_weights_are_those_of_the_formula():
    alphas, steps = SCHEDULER.alphas_cumprod, torch.arange(1000)
    snr = compute_snr(SCHEDULER, steps)
    torch.testing.assert_close(objective.debiased_weights("epsilon", alphas, steps), 1 / snr**0.5)
    # ε's error is that of the clean latents times SNR, v's is it times (SNR + 1): the two weigh that error alike.
    velocity = objective.debiased_weights("v_prediction", alphas, steps)
    torch.testing.assert_close(velocity * (snr + 1), 1 / snr**0.5 * snr)


def test_an_offset_moves_each_channel_as_a_whole():
    noise, channels = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 1, 1)
    moved = objective.offset_noise(noise, channels, 0.1) - noise
    for image in range(2):
        for channel in range(4):
            expected = torch.full((8, 8), 0.1 * float(channels[image, channel]))
            torch.testing.assert_close(moved[image, channel], expected, atol=1e-6, rtol=0)


def test_pseudo_huber_is_squared_near_zero_and_linear_far_away():
    wanted = torch.zeros(3, 1, 1, 2)
    prediction = torch.tensor([[1e-3, -1e-3], [50.0, -50.0], [0.3, -0.4]]).reshape(3, 1, 1, 2)
    small, large, between = objective.sample_errors(prediction, wanted, 0.1).tolist()
    assert small == pytest.approx(1e-6, rel=0.01)
    assert large == pytest.approx(2 * 0.1 * 50, rel=0.01)
    expected = [2 * 0.1 * (math.sqrt(e**2 + 0.1**2) - 0.1) for e in (0.3, 0.4)]
    assert between == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_zero_terminal_snr_is_algorithm_1_of_lin_et_al():
    scheduler = Objective(prediction_type="v_prediction", zero_terminal_snr=True).schedule(SCHEDULER)
    level = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    rescaled = (level - level[-1]) * level[0] / (level[0] - level[-1])
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), rescaled**2, atol=1e-5)
    assert scheduler.alphas_cumprod[-1] == 0
    # The last step is trained on noise alone, and asks for the image.
    latents, noise, last = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([999])
    assert torch.equal(objective.add_noise(scheduler.alphas_cumprod, latents, noise, last), noise)
    assert torch.equal(objective.target("v_prediction", scheduler.alphas_cumprod, latents, noise, last), -latents)
    assert SCHEDULER.alphas_cumprod[-1] > 0


def test_the_bases_schedule_stays_where_nothing_is_asked_of_it():
    assert Objective(snr_gamma=5.0).schedule(SCHEDULER) is SCHEDULER
    velocity = Objective(prediction_type="v_prediction").schedule(SCHEDULER)
    assert velocity.config.prediction_type == "v_prediction"
    assert torch.equal(velocity.alphas_cumprod, SCHEDULER.alphas_cumprod)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_gamma": 0}, "snr_gamma: 0 must be above 0"),
        ({"huber_delta": 0}, "huber_delta: 0 must be above 0"),
        ({"noise_offset": -0.1}, r"noise_offset: -0\.1 must be at least 0"),
        ({"caption_dropout": 1.5}, r"caption_dropout: 1\.5 is a share"),
        ({"snr_gamma": 5.0, "debiased": True}, "debiased: it is another weight in place of snr_gamma's"),
        ({"prior_loss_weight": -1.0}, "a weight must be at least 0"),
        ({"prior_loss_weight": {"NV": 1.0, "MEL": -1.0}}, "a weight must be at least 0"),
        ({"zero_terminal_snr": True}, "Add --model.objective.prediction_type v_prediction"),
        ({"zero_terminal_snr": True, "prediction_type": "epsilon"}, "its own input"),
        ({**ZERO_SNR, "snr_gamma": 5.0}, "objective.snr_gamma: it gives the last step of a zero"),
        ({**ZERO_SNR, "debiased": True}, "objective.debiased: it gives the last step of a zero"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Objective(**options).schedule(SCHEDULER)


def test_what_a_base_predicts_must_be_known():
    with pytest.raises(InputError, match=r"model\.base: its scheduler says prediction_type 'sample'"):
        Objective().schedule(DDPMScheduler(prediction_type="sample"))


def test_class_images_weigh_as_much_as_their_class():
    weights = Objective(prior_loss_weight={"MEL": 2.0, "NV": 0.5}).prior_weights(["NV", "MEL"])
    assert weights.tolist() == [0.5, 2.0]
    errors, prior = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([False, True, False, True])
    labels = torch.tensor([1, 1, 1, 0])
    loss = objective.dreambooth_loss(errors, prior, weights[labels])
    assert float(loss) == (1 + 3) / 2 + (2.0 * 2 + 0.5 * 4) / 2
    assert Objective(prior_loss_weight=0.3).prior_weights([]) == 0.3
    with pytest.raises(InputError, match=r"names the classes MEL, NV; data\.classes are NV, MEL, SK"):
        Objective(prior_loss_weight={"MEL": 2.0, "NV": 0.5}).prior_weights(["NV", "MEL", "SK"])


def test_weights_of_noise_levels_reach_instances_and_class_images_alike():
    errors = objective.sample_errors(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2))
    prior = torch.tensor([False, True, False, True])
    loss = objective.dreambooth_loss(errors * torch.tensor([1.0, 2.0, 3.0, 4.0]), prior, 0.5)
    assert float(loss) == (1 + 3) / 2 + 0.5 * (2 + 4) / 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize(
    ("made", "key"),
    [
        (lambda value: Objective(snr_gamma=value), "model.objective.snr_gamma"),
        (lambda value: Objective(huber_delta=value), "model.objective.huber_delta"),
        (lambda value: Objective(noise_offset=value), "model.objective.noise_offset"),
        (lambda value: Objective(caption_dropout=value), "model.objective.caption_dropout"),
        (lambda value: Objective(prior_loss_weight=value), "model.objective.prior_loss_weight"),
        (lambda value: Objective(prior_loss_weight={"NV": 1, "MEL": value}), "model.objective.prior_loss_weight"),
        (lambda value: LoRA(alpha=value), "model.lora.alpha"),
        (lambda value: Sampling(guidance_scale=value), "model.sampling.guidance_scale"),
    ],
)
def test_numbers_out_of_range_are_refused_and_nan_is_in_none(made, key, value):
    with pytest.raises(InputError, match=key):
        made(value)


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (lambda: LoRA(rank=100_000_000), "model.lora.rank"),
        (lambda: LoRA(rank=0), "model.lora.rank"),
        (lambda: Sampling(steps=1_000_000), "model.sampling.steps"),
        (lambda: Sampling(steps=0), "model.sampling.steps"),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(made, key):
    with pytest.raises(InputError, match=key):
        made()
