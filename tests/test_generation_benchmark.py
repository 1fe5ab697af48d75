"""Both sides of the benchmark of generation do what they are timed for."""

import json
import time

import pytest
import yaml

from benchmarks import generate


@pytest.fixture
def words(base, tmp_path):
    """A recipe of the smallest model."""
    recipe = {
        "trainer": {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False},
        "model": {"class_path": "DreamBooth", "init_args": {"base": base, "sampling": {"steps": 2}}},
        "data": {
            "class_path": "GenerationData",
            "init_args": {"classes": ["NV", "MEL"], "count": 1, "batch_size": 3, "prompt": "a {lesion}"},
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(tmp_path / "recipe.yaml")]


def test_both_sides_are_timed_on_whole_images(words):
    ours = generate.ours(time.time(), words, batches=2)
    plain = generate.plain(time.time(), words, images=4)
    assert (ours["images"], plain["images"]) == (6, 4)
    assert ours["flops_per_image"] > 0
    said = generate.summary({"ours": [ours], "plain loop": [plain]}, ours["flops_per_image"])
    assert said["ratios"] == [pytest.approx(plain["cpu"] / 4 / (ours["cpu"] / 6), abs=0.01)]
    assert json.loads(json.dumps(said))["device"] == "cpu"
