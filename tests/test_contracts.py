"""The classes that configurations name keep what others ask of them, and what lacks it is told so."""

from functools import partial

import lightning as L
import pytest

from callbacks.image_set_writer import ImageSetWriter
from callbacks.sample_grid import SampleGrid
from dermsynth import contracts
from dermsynth.classification.classifier import Classifier
from dermsynth.data.loading.generation import GenerationData
from dermsynth.data.loading.modules import ClassificationData, DreamBoothData
from dermsynth.diffusion.autoencoder import Autoencoder
from dermsynth.diffusion.dreambooth import DreamBooth
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set

SMALL = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "intermediate_size": 8}
OF_IMAGES = {"Classed", "SplitData", "HeldOutData", "ExternalData", "CountedTraining", "CountedValidation"}


def kept(owner):
    """The names of the protocols that an object satisfies."""
    checkable = [one for one in vars(contracts).values() if getattr(one, "_is_runtime_protocol", False)]
    return {protocol.__name__ for protocol in checkable if isinstance(owner, protocol)}


@pytest.mark.parametrize(
    ("kind", "expected"), [(ClassificationData, OF_IMAGES), (DreamBoothData, OF_IMAGES | {"PromptedData"})]
)
def test_data_of_images_say_what_models_ask(tmp_path, kind, expected):
    data = kind(real=make_set(tmp_path / "set"), classes=CLASSES, size=16, batch_size=2)
    data.setup("fit")
    assert kept(data) == expected


def test_generation_says_its_prompts_and_classes():
    assert kept(GenerationData(CLASSES, count=1, batch_size=1)) == {"Classed", "PromptedData", "PlannedData"}


def test_models_say_what_data_and_callbacks_ask(base):
    assert kept(DreamBooth(base)) == {"SplitData", "LatentModel", "Generator", "Exportable"}
    assert kept(Autoencoder(base)) == {"SplitData", "Exportable"}
    assert kept(Classifier(CLASSES, SMALL)) == {"Classed", "SplitData", "Exportable"}


@pytest.mark.parametrize("hook", [SampleGrid(["a"], 1).on_fit_start, partial(ImageSetWriter().setup, stage="predict")])
def test_callbacks_of_generators_refuse_other_models(hook):
    with pytest.raises(InputError, match="a Classifier makes no images of prompts"):
        hook(L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), Classifier(CLASSES, SMALL))
