"""What a checkpoint says of itself: which kind of model wrote it, fitted on what, and what must be so again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from dermsynth.errors import InputError
from dermsynth.provenance import Provenance, check_provenance

_KEY = "dermsynth"
# Fields whose key in the file is another.
_KEYS = {"provenance": "data", "network": "model"}
_TYPES: dict[str, type] = {
    "classes": list,
    "network": dict,
    "base": str,
    "base_sha256": str,
    "train_text_encoder": bool,
    "prediction_type": str,
    "zero_terminal_snr": bool,
    "lora": dict,
}


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint holds beside weights and state, plain values alone; None for what its kind does not have.

    Args:
        kind: of model, such as `classifier`.
        provenance: of the weights.
        classes: of a classifier, in the order of the labels.
        network: the configuration of a classifier's network, as transformers has it.
        base: the pipeline that a generator was made of.
        base_sha256: the hash of its weights.
        train_text_encoder: whether the text encoder is among the weights.
        prediction_type: what the UNet predicts.
        zero_terminal_snr: whether its last noise level has no signal.
        lora: the adapters' dimensions, if adapters were trained.
    """

    kind: str
    provenance: Provenance = field(default_factory=Provenance)
    classes: list[str] | None = None
    network: dict[str, Any] | None = None
    base: str | None = None
    base_sha256: str | None = None
    train_text_encoder: bool | None = None
    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None
    lora: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a checkpoint keeps it: its bytes, whose hash stands in what it generates, are those of former versions."""
        said = {_key(name): vars(self)[name] for name in _TYPES if vars(self)[name] is not None}
        if self.train_text_encoder is not None:  # a generator, which says that it has no adapters, too
            said["lora"] = self.lora
        return {"kind": self.kind, **said, "data": self.provenance}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """What `to_dict` has made.

        Raises:
            InputError: a value is not one of this package's, or one of a later version; the message begins with
                `the checkpoint`.
        """
        kind = content.get("kind") if isinstance(content, Mapping) else None
        if not isinstance(content, Mapping) or not isinstance(kind, str):
            raise InputError(
                "the checkpoint was not written by dermsynth: it does not say of which kind of model it is."
            )
        values = {name: content.get(_key(name)) for name in _TYPES}
        for name, value in values.items():
            if value is not None and not isinstance(value, _TYPES[name]):
                raise InputError(
                    f"the checkpoint is damaged: its {_key(name)} is {str(value)[:60]!r}; expected a "
                    f"{_TYPES[name].__name__}. Take another one of the run."
                )
        if unknown := [name for name in content if name not in ("kind", *map(_key, ("provenance", *_TYPES)))]:
            raise InputError(
                f"the checkpoint says {str(unknown[0])[:60]!r} of itself, which this version of dermsynth does not "
                "know. Use the version that wrote it."
            )
        return cls(kind, check_provenance("the checkpoint", content.get("data", {})), **values)

    def into(self, checkpoint: dict[str, Any]) -> None:
        """Write it into a checkpoint that is being made."""
        checkpoint[_KEY] = self.to_dict()

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Read it from a checkpoint; see `from_dict`."""
        return cls.from_dict(checkpoint.get(_KEY))


def kind_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The kind of model that wrote a checkpoint; none if it is not one of ours."""
    content = checkpoint.get(_KEY)
    kind = content.get("kind") if isinstance(content, Mapping) else None
    return kind if isinstance(kind, str) else None


def check_kind(checkpoint: Mapping[str, Any], expected: str, **same: object) -> CheckpointFacts:
    """What a checkpoint says of itself, unless another model wrote it.

    Args:
        checkpoint: as loaded.
        expected: the kind of model that loads it.
        same: fields that must have these values.

    Raises:
        InputError: saying what the checkpoint is and what was expected.
    """
    facts = CheckpointFacts.of(checkpoint)
    if facts.kind != expected:
        raise InputError(f"the checkpoint is one of a {facts.kind}; expected one of a {expected}.")
    if facts.provenance and not facts.provenance.get("train_split_sha256"):
        raise InputError(
            "the checkpoint does not say on which train split it was fitted, so nothing can tell whether it saw the "
            "images that it is used on. Take another one of the run."
        )
    found = asdict(facts)
    for name, value in same.items():
        if found[name] != value:
            raise InputError(f"the checkpoint was made with {name} {found[name]!r}, the configuration has {value!r}.")
    return facts


def _key(name: str) -> str:
    return _KEYS.get(name, name)
