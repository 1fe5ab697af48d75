"""What the benchmark's numbers rest on: the small model costs as the large one does, and the summary is right."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks.dreambooth import HERE, summary
from callbacks.throughput import flop_counter


def test_the_small_model_has_the_blocks_and_the_proportions_of_the_large_one():
    configs = HERE / "small_sd"
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        with flop_counter() as training:
            unet(torch.randn(1, 4, 16, 16), torch.ones(1), torch.randn(1, 77, 64)).sample.sum().backward()
        with flop_counter() as encoding, torch.no_grad():
            vae.encode(torch.randn(1, 3, 128, 128))
    kinds = [type(module).__name__ for module in unet.modules()]
    assert (kinds.count("ResnetBlock2D"), kinds.count("BasicTransformerBlock")) == (22, 16)  # as in 1.5
    share = encoding.get_total_flops() / training.get_total_flops()
    assert 0.42 < share < 1.117 / 2.407, "no larger than in 1.5, or the cache would gain more than it does there"


def test_the_summary_compares_medians():
    def side(wall, cpu, device="cpu"):
        timed = {"images": 10, "wall": wall, "cpu": cpu, "seconds_to_first_step": wall}
        return {**timed, "device": device, "peak_memory_gb": 1.0}

    found = {"ours": [side(1, 2), side(2, 2), side(50, 9)], "plain loop": [side(4, 3), side(4, 3), side(4, 3)]}
    numbers = summary(found, 1e12)
    assert (numbers["ratio"], numbers["wall_ratio"]) == (1.5, 2.0)
    assert (numbers["images_per_second"], numbers["tflops"], numbers["mfu"]) == (5, 5, None)
    assert numbers["seconds_to_first_step"] == 1
    found["ours"] = [side(0.02, 2, "NVIDIA H200")]
    numbers = summary(found, 1e12)
    assert numbers["ratio"] == numbers["wall_ratio"] == 200
    assert numbers["mfu"] == pytest.approx(500 / 989.4, abs=1e-4)
