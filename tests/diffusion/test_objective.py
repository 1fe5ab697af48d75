import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

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
