import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from dermsynth.diffusion import objective

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


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
    loss = objective.dreambooth_loss(torch.tensor(prediction), torch.tensor(wanted), torch.tensor(mask), 0.3)
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


def test_weights_reach_instances_and_class_images_alike():
    prediction, wanted = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    prior = torch.tensor([False, True, False, True])
    loss = objective.dreambooth_loss(prediction, wanted, prior, 0.5, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert float(loss) == (1 + 3) / 2 + 0.5 * (2 + 4) / 2
