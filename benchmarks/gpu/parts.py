"""What is measured: recipes of configs/ with their overlays, and the plain loops beside them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dermsynth.run.classes import named
from dermsynth.run.yaml_files import read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class Part:
    """One measurement, in a process of its own.

    Args:
        recipe: its file in configs/, without the ending.
        how: what the tables call it.
        seconds: its share of the time, on an H100. It begins if that is left, and is stopped after twice that.
        overlays: their files in configs/overlays/, without the ending.
        plain: the loop that one would write without this package, with the recipe's model.
        work_of: the part of the same recipe, by `how`, whose count of operations the plain loop does as well.
        flags: of `fit` or `predict`.
    """

    recipe: str
    how: str
    seconds: float
    overlays: tuple[str, ...] = ()
    plain: bool = False
    work_of: str = ""
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Recipe and way."""
        return f"{self.recipe}: {self.how}"

    @property
    def configs(self) -> list[Path]:
        """The files, as the command line takes them."""
        return [CONFIGS / f"{self.recipe}.yaml", *(CONFIGS / "overlays" / f"{name}.yaml" for name in self.overlays)]

    @cached_property
    def kind(self) -> Literal["dreambooth", "classifier", "generation"]:
        """What the recipe does."""
        values = read_yaml(self.configs[0])
        if named(values["data"]["class_path"]) == "GenerationData":
            return "generation"
        return "classifier" if named(values["model"]["class_path"]) == "Classifier" else "dreambooth"

    @property
    def stage(self) -> Literal["fit", "predict"]:
        """The command."""
        return "predict" if self.kind == "generation" else "fit"


FAST, CACHED = "80 GB overlay", "80 GB overlay, latent cache"
RECIPE, PLAIN = "as it is", "plain loop"
# What the usual scripts have by default (diffusers' train_dreambooth.py, train_batch_size and sample_batch_size).
_FOUR = ("--data.batch_size", "4")


def _dreambooth(recipe: str, compiling: float) -> list[Part]:
    return [
        Part(recipe, PLAIN, 20, ("dreambooth_80gb",), plain=True, work_of=FAST, flags=_FOUR),
        Part(recipe, CACHED, 30 + compiling, ("dreambooth_80gb", "latent_cache")),
        Part(recipe, FAST, 35, ("dreambooth_80gb",)),  # most of what is compiled lies in torch's cache by now
        Part(recipe, RECIPE, 20),
    ]


# What the aims are about comes first, as what the time does not suffice for is left out at the end.
PARTS = [
    *_dreambooth("dreambooth_sd15", compiling=85),
    *_dreambooth("dreambooth_sd15_lora", compiling=40),
    Part("generate_sd15", PLAIN, 15, plain=True, work_of=RECIPE, flags=_FOUR),
    Part("generate_sd15", RECIPE, 20),
    Part("vit_b16", PLAIN, 15, plain=True, work_of=RECIPE),
    Part("vit_b16", RECIPE, 25),
    Part("derm_t2im", RECIPE, 15),
    Part("prior_sd15", RECIPE, 25),
    *(
        Part(
            "dreambooth_sd15",
            f"80 GB overlay, batches of {batch}, not compiled",
            20,
            ("dreambooth_80gb",),
            flags=("--data.batch_size", str(batch), "--model.compile", "false"),
        )
        for batch in (16, 20)
    ),
]


@dataclass(frozen=True)
class Timing:
    """How a kind of part is timed.

    Args:
        warmup: batches that are not timed. Training compiles in the first, and the work is counted, uncompiled, in the
            second; where images are generated it is counted in the first.
        laps: groups of batches that are timed, of whose times the median counts.
        steps: batches of a lap. Where loader processes set the pace, as many as there are of them, since so many
            batches come at once.
        images: of the set that is trained on: an epoch of the largest batches whose speed matters.
        flags: the last on the command line.
    """

    warmup: int
    laps: int
    steps: int
    images: int = 0
    flags: tuple[str, ...] = ()

    @property
    def batches(self) -> int:
        """Of all."""
        return self.warmup + self.laps * self.steps


@dataclass(frozen=True)
class Size:
    """How large the models are that take the place of the recipes' own, all with random weights.

    Args:
        vit: configuration of the classifier.
        photographs: width and height in pixels of the images that are trained on.
        timings: of each kind of part.
    """

    vit: dict[str, Any]
    photographs: tuple[int, int]
    timings: dict[str, Timing]


_VIT_B16 = {
    "model_type": "vit",
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_TINY_VIT = {
    "model_type": "vit",
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_CPU = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--data.batch_size", "4")
_TRAINS = (*_CPU, "--data.num_workers", "0", "--data.size")

FULL = Size(
    _VIT_B16,
    (768, 512),
    {
        "dreambooth": Timing(warmup=3, laps=3, steps=4, images=15 * 12),
        "classifier": Timing(warmup=4, laps=3, steps=8, images=28 * 64),
        "generation": Timing(warmup=1, laps=3, steps=1),
    },
)
TINY = Size(
    _TINY_VIT,
    (96, 64),
    {
        "dreambooth": Timing(2, laps=2, steps=1, images=16, flags=(*_TRAINS, "64", "--model.compile", "false")),
        "classifier": Timing(2, laps=2, steps=1, images=16, flags=(*_TRAINS, "32")),
        "generation": Timing(1, laps=2, steps=1, flags=(*_CPU, "--model.sampling.steps", "4")),
    },
)
