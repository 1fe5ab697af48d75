"""What checkpoints say of themselves is kept as it was, read back, and refused where it is nonsense."""

from dataclasses import FrozenInstanceError

import pytest

from dermsynth.errors import InputError
from dermsynth.run.checkpoint_facts import CheckpointFacts, check_kind, kind_of

PROVENANCE = {"train_split_sha256": "a" * 64, "classes": ["NV", "MEL"], "license": "CC0-1.0", "attribution": "x"}
# As checkpoints of former versions hold it.
CLASSIFIER = {"kind": "classifier", "classes": ["NV", "MEL"], "model": {"model_type": "vit"}, "data": PROVENANCE}
DREAMBOOTH = {
    "kind": "dreambooth",
    "base": "tiny",
    "base_sha256": "b" * 64,
    "train_text_encoder": False,
    "prediction_type": "epsilon",
    "zero_terminal_snr": False,
    "lora": None,
    "data": {**PROVENANCE, "token": "sks"},
}
AUTOENCODER = {"kind": "autoencoder", "base": "tiny", "data": {}}


@pytest.mark.parametrize("content", [CLASSIFIER, DREAMBOOTH, AUTOENCODER], ids=lambda content: content["kind"])
def test_the_keys_of_former_checkpoints_are_read_and_written(content):
    facts = CheckpointFacts.from_dict(content)
    assert list(facts.to_dict().items()) == list(content.items())  # in their order, so that the file's hash is the same
    assert CheckpointFacts.from_dict(facts.to_dict()) == facts
    checkpoint = {"state_dict": {}}
    facts.into(checkpoint)
    assert CheckpointFacts.of(checkpoint) == facts
    assert kind_of(checkpoint) == content["kind"]
    with pytest.raises(FrozenInstanceError):
        facts.kind = "other"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not written by dermsynth"),
        ([], "not written by dermsynth"),
        ({"kind": 5}, "not written by dermsynth"),
        ({**CLASSIFIER, "classes": "NV"}, "its classes is 'NV'; expected a list"),
        ({**CLASSIFIER, "model": "vit"}, "its model is 'vit'; expected a dict"),
        ({**DREAMBOOTH, "train_text_encoder": 1}, "its train_text_encoder is '1'; expected a bool"),
        ({**DREAMBOOTH, "base_sha256": b"x"}, "its base_sha256 is .* expected a str"),
        ({**DREAMBOOTH, "lora": [2]}, "its lora is .* expected a dict"),
        ({**DREAMBOOTH, "data": 1}, "what it says of its data is a int"),
        ({**DREAMBOOTH, "network": {}}, "says 'network' of itself, which this version of dermsynth does not know"),
    ],
)
def test_nonsense_is_refused_in_one_line(content, message):
    with pytest.raises(InputError, match=f"^the checkpoint.*{message}") as error:
        CheckpointFacts.from_dict(content)
    assert "\n" not in str(error.value)


def test_only_its_own_kind_with_the_same_facts_is_taken():
    checkpoint = {"dermsynth": CLASSIFIER}
    assert check_kind(checkpoint, "classifier", classes=["NV", "MEL"]).provenance == PROVENANCE
    with pytest.raises(InputError, match="is one of a classifier; expected one of a dreambooth"):
        check_kind(checkpoint, "dreambooth")
    with pytest.raises(InputError, match=r"made with classes \['NV', 'MEL'\], the configuration has \['MEL', 'NV'\]"):
        check_kind(checkpoint, "classifier", classes=["MEL", "NV"])
    with pytest.raises(InputError, match="does not say on which train split"):
        check_kind({"dermsynth": {**CLASSIFIER, "data": {"license": "CC0-1.0"}}}, "classifier")
