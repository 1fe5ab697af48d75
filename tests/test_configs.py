"""Every file in configs/ is parsed by the real command line, for each stage that its first line names."""

import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from dermsynth.errors import InputError
from dermsynth.run.config import leaves
from dermsynth.run.configuration import read_configuration

ROOT = Path(__file__).parents[1] / "configs"
# Studies are no configurations of a command; tests/study reads and plans them.
FILES = sorted(file for file in ROOT.rglob("*.yaml") if file.parent.name != "studies")
MARK = "# stages: "


def stages(file: Path) -> list[str]:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(MARK), f"{file}: the first line must say for which stages it is"
    return first.removeprefix(MARK).split(", ")


RECIPES = [file for file in FILES if not stages(file)[0].startswith("overlay")]
RECIPES_AND_STAGES = [(file, stage) for file in RECIPES for stage in stages(file)]
QUICK = sorted((ROOT / "quickstart").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "overlays").glob("*.yaml"))
ARMS = sorted((ROOT / "arms").glob("*.yaml"))


def name(value):
    """Of a file or stage, in the name of a test."""
    return getattr(value, "stem", value)


def parse(stage: str, *files: Path):
    arguments = [word for file in files for word in ("--config", str(file))]
    if any(file.stem.startswith("generate") for file in files):  # whose base is the checkpoint's
        arguments += ["--ckpt_path", "to/come.ckpt"]
    return read_configuration(stage, [*arguments, "--run", "some/run"])


def test_every_file_is_a_recipe_or_an_overlay():
    assert len(RECIPES) >= 11
    assert set(FILES) == {*RECIPES, *QUICK, *OVERLAYS, *ARMS}


@pytest.mark.parametrize(("file", "stage"), RECIPES_AND_STAGES, ids=name)
def test_recipes_parse(file, stage):
    config = parse(stage, file)
    assert config["seed_everything"] is not None
    # A recipe that trains says how long in steps, which are what arms are matched by; its schedule ends with it.
    if stage == "fit":
        assert config["trainer"]["max_steps"] > 0
        schedule = config["model"]["init_args"]["lr_scheduler"]
        assert schedule is None or schedule["init_args"]["total_steps"] is None
        kinds = [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]
        assert kinds[:3] == ["ModelCheckpoint", "Preemption", "LearningRateMonitor"]
        assert len(set(kinds)) == len(kinds)
        # A laptop may compute in bfloat16 or not; the others are for GPUs.
        given = yaml.safe_load(file.read_text(encoding="utf-8"))["trainer"].get("precision")
        assert given == (None if file.parent.name == "tiny" else "bf16-mixed")


def fits(overlay: Path, recipe: Path) -> bool:
    """Whether the overlay's first line says that it is for this recipe."""
    return "any recipe" in stages(overlay)[0] or recipe.name in " ".join(stages(overlay)).split()


@pytest.mark.parametrize(
    ("file", "stage", "overlay"),
    [(file, stage, overlay) for file, stage in RECIPES_AND_STAGES for overlay in OVERLAYS if fits(overlay, file)],
    ids=name,
)
def test_overlays_parse_on_their_recipes(file, stage, overlay):
    config = parse(stage, file, overlay)
    for key, value in yaml.safe_load(overlay.read_text(encoding="utf-8")).get("trainer", {}).items():
        if not isinstance(value, dict):
            assert config["trainer"][key] == value


@pytest.mark.parametrize("overlay", QUICK, ids=lambda file: file.stem)
def test_quickstart_overlays_parse_on_their_recipes(overlay):
    names = [w for w in stages(overlay)[0].split() if w.startswith("tiny/")]
    assert names
    for name in names:
        recipe = ROOT / name
        config = parse(stages(recipe)[0], recipe, overlay)
        assert config["data"]["init_args"]["classes"] == ["benign", "malignant"]


CLASSIFIERS = [ROOT / "tiny" / "vit.yaml", ROOT / "vit_b16.yaml"]


@pytest.mark.parametrize("recipe", CLASSIFIERS, ids=name)
@pytest.mark.parametrize("arm", ARMS, ids=name)
def test_arms_are_a_mix_on_a_classifiers_recipe_and_nothing_else(arm, recipe):
    without, on_top = (leaves(parse("fit", *files), ("config",)) for files in ([recipe], [recipe, arm]))
    differing = {key for key in {**without, **on_top} if without.get(key) != on_top.get(key)}
    assert all(key.startswith("data.init_args.mix") for key in differing)
    assert bool(differing) == (arm.stem != "real")  # which a recipe is without an arm


def test_the_fast_overlay_and_the_latent_cache_are_of_both_dreambooth_recipes():
    fast, cache = ROOT / "overlays/dreambooth_80gb.yaml", ROOT / "overlays/latent_cache.yaml"
    for overlay in (fast, cache):
        recipes = [file for file in RECIPES if fits(overlay, file)]
        assert [file.stem for file in recipes] == ["dreambooth_sd15", "dreambooth_sd15_lora"]
    for recipe in recipes:
        config = parse("fit", recipe, fast)
        model, data = config["model"]["init_args"], config["data"]["init_args"]
        assert (model["channels_last"], model["compile"], model["gradient_checkpointing"]) == (True, True, False)
        assert model["optimizer"]["init_args"]["fused"]
        assert data["latent_cache"] is None  # 2,000 steps show fewer images than there would be views to encode
        both = parse("fit", recipe, fast, cache)["data"]["init_args"]
        assert (both["batch_size"], both["latent_cache"]) == (12, "cache/latents")


EIGHT_BIT = ROOT / "dreambooth_sd15.yaml", ROOT.parent / "tests/eight_bit.yaml"


@pytest.mark.eightbit
def test_eight_bit_optimizers_are_a_class_path_away():
    assert parse("fit", *EIGHT_BIT)["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-5


def test_what_an_eight_bit_optimizer_lacks_is_named(monkeypatch):
    class Finder:
        """One that does not find it, as where it is not installed."""

        def __init__(self, finder):
            self._finder = finder

        def __getattr__(self, name):
            return getattr(self._finder, name)

        def find_spec(self, name, path=None, target=None):
            hidden = name.partition(".")[0] == "bitsandbytes"
            return None if hidden else self._finder.find_spec(name, path, target)

    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(finder) for finder in sys.meta_path])
    with pytest.raises(InputError, match=r"bitsandbytes\.optim\.PagedAdamW8bit needs bitsandbytes: pip install"):
        parse("fit", *EIGHT_BIT)


def test_gradients_between_gpus_are_bf16():
    strategy = parse("fit", ROOT / "vit_b16.yaml", ROOT / "overlays" / "ddp.yaml")["trainer"]["strategy"]
    parser = ArgumentParser()
    parser.add_subclass_arguments(DDPStrategy, "strategy")
    made = parser.instantiate_classes(parser.parse_object({"strategy": strategy})).strategy
    assert made._ddp_comm_hook is bf16_compress_hook
    assert made._ddp_kwargs["static_graph"]
    assert made._ddp_kwargs["gradient_as_bucket_view"]
    assert made._ddp_kwargs["broadcast_buffers"] is False
