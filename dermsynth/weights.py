"""Weights in safetensors files, one or sharded: where they lie, and whether they are numbers that a network can use."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from dermsynth.errors import InputError
from dermsynth.files import read_json
from dermsynth.hub import first_line

_TYPES = ("F64", "F32", "F16", "BF16")
_ADVICE = "Copy or download it again."


@contextmanager
def loading(what: str, advice: str) -> Iterator[None]:
    """Turn what libraries raise for missing, cut and garbled files, whatever it is, into one message.

    Args:
        what: is loaded, as the message names it.
        advice: what to give instead, as a sentence.

    Raises:
        InputError: it could not be loaded.
        KeyboardInterrupt: Ctrl-C, which libraries may take for a broken file.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            cause = cause.__cause__ or cause.__context__
        raise InputError(f"{what} could not be loaded: {first_line(error)} {advice}") from error


def shard_names(index: Path) -> list[str]:
    """The files that the index of sharded weights, `NAME.safetensors.index.json`, names.

    Raises:
        InputError: it is broken, or names a file elsewhere.
    """
    places = read_json(index, _ADVICE).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise InputError(f"{index}: its weight_map names no files beside it. {_ADVICE}")
    return names


def tensors_of(files: Iterable[Path]) -> Iterator[Tensor]:
    """The tensors of safetensors files, one by one."""
    for file in files:
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (no mapping)
                yield weights.get_tensor(name)


def refuse_quantised(owner: str, files: Iterable[Path]) -> None:
    """Refuse weights as integers or 8-bit numbers: libraries read them as if they were the weights themselves.

    Args:
        owner: whose they are, as the message names it.
        files: safetensors files.

    Raises:
        InputError: naming one of them.
    """
    for file in files:
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (no mapping)
                part = weights.get_slice(name)
                # Positions and counters, the only whole numbers in a network's files, are int64.
                if part.get_dtype() not in (*_TYPES, "I64", "BOOL"):
                    raise InputError(
                        f"{owner}: {name} in {file.name} is {part.get_dtype()}; expected float32, float16 or bfloat16. "
                        "Give weights that are not quantised."
                    )


def refuse_not_finite(owner: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite, as those of a training that diverged.

    Args:
        owner: whose they are, as the message names it.
        weights: by name.

    Raises:
        InputError: how many, naming one of them.
    """
    broken = [name for name, tensor in weights.items() if not _is_finite(tensor)]
    if broken:
        raise InputError(
            f"{owner}: {len(broken)} of {len(weights)} weights are NaN or infinite, such as {broken[0]}. Take weights "
            "from before training diverged."
        )


def refuse_missing(owner: str, missing: Collection[str]) -> None:
    """Refuse files that lack weights, which libraries fill with random numbers.

    Args:
        owner: whose they are, as the message names it.
        missing: names of the weights.

    Raises:
        InputError: how many, naming one of them.
    """
    if missing:
        raise InputError(f"{owner} lacks {len(missing)} weights, such as {min(missing)}.")


def said_of_unused(owner: str, unused: Collection[str]) -> str:
    """What is printed of weights in the files that the network has no place for; blank where there are none."""
    return f"{owner}: {len(unused)} weights in its files are not used, such as {min(unused)}" if unused else ""


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    # A NaN is both the least and the greatest; unlike `isfinite`, this takes no memory.
    return bool(torch.isfinite(torch.stack(tensor.detach().aminmax())).all())
