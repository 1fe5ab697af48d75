"""A base by its name: found, and of a kind that is supported, or refused before anything large is loaded."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from dermsynth.errors import InputError
from dermsynth.files import read_json
from dermsynth.hub import explain_missing, first_line, is_folder_name, local_folder

INDEX = "model_index.json"
#: Bases that come with the package, by their names: each a folder with its model card.
PACKAGED = Path(__file__).parents[1] / "bases"
SUPPORTED = (
    "Give a Stable Diffusion 1.x or 2.x pipeline of the class StableDiffusionPipeline: a hub id such as "
    f"stable-diffusion-v1-5/stable-diffusion-v1-5, a folder with {INDEX}, or tiny, the small base in the package."
)
ADVICE = "Copy or download it again."
PARTS_WITH_WEIGHTS = ("text_encoder", "unet", "vae")
# Images of 8192 pixels; Stable Diffusion has 64 or 96.
_LARGEST_LATENTS = 1024


def base_folder(base: str) -> Path | None:
    """The folder that a base's name means, if it means one: that of a packaged base, or one of the user's.

    A folder of the user's that has a packaged base's name is given as `./NAME`.
    """
    # Only the names themselves: joined to the folder, a path such as `../x` would lead out of it.
    return PACKAGED / base if base in _packaged() else local_folder(base)


@functools.cache
def _packaged() -> frozenset[str]:
    return frozenset(file.parent.name for file in PACKAGED.glob(f"*/{INDEX}"))


def check_base(base: str) -> Path | None:
    """Find a base and look at its configuration.

    Args:
        base: hub id, folder, or the name of a packaged base.

    Returns:
        The folder; none if it is a hub id.

    Raises:
        InputError: there is no such folder or id, it may not be read, or it is another kind of model.
    """
    folder = base_folder(base)
    if folder is None and (is_folder_name(base) or base.count("/") != 1):
        raise InputError(f"model.base: {explain_missing(base, '--model.base', INDEX)} {SUPPORTED}")
    kind = read_json(_file(base, folder, INDEX), ADVICE).get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise InputError(f"model.base: {base} is a {kind}. {SUPPORTED}")
    _check_unet(base, read_json(_file(base, folder, "unet/config.json"), ADVICE))
    if folder is not None:
        _check_files(folder)
    return folder


def refuse_negative(base: str, part: str, config: Mapping[str, Any]) -> None:
    """Refuse counts below 0, of which some libraries make a network that fails when it is used.

    Args:
        base: its name.
        part: the UNet or the VAE, whose whole numbers are all counts or sizes.
        config: of the part.

    Raises:
        InputError: naming the key.
    """
    for key, value in config.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and number < 0:
                raise InputError(
                    f"model.base: {key} of the {part} of {base} is {value!r}; expected 0 or more. {ADVICE}"
                )


def check_together(
    base: str,
    unet: Mapping[str, Any],
    text_encoder: Mapping[str, Any],
    scaling_factor: object,
    latent_channels: object,
    words: int,
    length: object,
    alphas_cumprod: Sequence[float],
) -> None:
    """Refuse parts that do not go together, and numbers that no image could be made with.

    Args:
        base: its name.
        unet: its whole configuration.
        text_encoder: the same.
        scaling_factor: of the VAE's latents.
        latent_channels: of the VAE.
        words: of the tokenizer.
        length: of a prompt in the tokenizer's words.
        alphas_cumprod: ᾱ of the noise schedule.

    Raises:
        InputError: naming the part and what it says.
    """
    most, width = text_encoder["max_position_embeddings"], unet["cross_attention_dim"]
    size = unet["sample_size"]
    sizes = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
    problem = ""
    if not all(isinstance(side, int) and 1 <= side <= _LARGEST_LATENTS for side in sizes):
        problem = f"sample_size of its UNet is {size!r}; expected a number from 1 to {_LARGEST_LATENTS}"
    elif not (isinstance(scaling_factor, int | float) and 0 < scaling_factor < math.inf):
        problem = f"scaling_factor of its VAE is {scaling_factor!r}; expected a number above 0"
    elif latent_channels != unet["in_channels"]:
        problem = f"its VAE has {latent_channels} channels and its UNet takes {unet['in_channels']}"
    elif isinstance(width, int) and text_encoder["hidden_size"] != width:
        problem = f"its text encoder is {text_encoder['hidden_size']} wide and its UNet takes {width}"
    elif words > text_encoder["vocab_size"]:
        problem = f"its tokenizer has {words} words and its text encoder {text_encoder['vocab_size']}"
    elif not (isinstance(length, int) and 2 <= length <= most):
        problem = f"model_max_length of its tokenizer is {length!r}; expected 2 to the text encoder's {most}"
    elif not alphas_cumprod or not all(0 <= alpha <= 1 for alpha in alphas_cumprod):
        problem = "its scheduler's betas and num_train_timesteps make no noise schedule"
    if problem:
        raise InputError(f"model.base: {base}: {problem}. {ADVICE}")


@functools.cache
def commit_of(base: str) -> str:
    """The commit of a hub id that this process uses; a file of it that was downloaded once is not asked for again."""
    # The cache keeps a commit's files in a folder of its name.
    return _file(base, None, INDEX).parent.name


def _check_unet(base: str, config: dict[str, Any]) -> None:
    refuse_negative(base, "unet", config)
    if config.get("addition_embed_type"):
        raise InputError(f"model.base: the UNet of {base} is one of Stable Diffusion XL. {SUPPORTED}")
    channels = (config.get("in_channels", 4), config.get("out_channels", 4))
    if channels[0] != channels[1]:
        kind = "an inpainting model" if channels == (9, 4) else "a model that also takes another image"
        raise InputError(
            f"model.base: the UNet of {base} has {channels[0]} channels in and {channels[1]} out, so it is {kind}. "
            f"{SUPPORTED}"
        )


def _check_files(folder: Path) -> None:
    # Without its files transformers silently makes an empty tokenizer.
    words = folder / "tokenizer"
    layouts = (["tokenizer.json"], ["vocab.json", "merges.txt"])
    if not any(all((words / name).is_file() for name in layout) for layout in layouts):
        raise InputError(f"model.base: {words} has neither tokenizer.json nor both of vocab.json and merges.txt.")
    for part in PARTS_WITH_WEIGHTS:
        if not list((folder / part).glob("*.safetensors")) and list((folder / part).glob("*.bin")):
            raise InputError(
                f"model.base: {folder / part} has its weights as .bin, which may run code when it is read, and not as "
                ".safetensors. If you trust it, convert the folder: StableDiffusionPipeline.from_pretrained(FOLDER)"
                ".save_pretrained(NEW_FOLDER)."
            )


def _file(base: str, folder: Path | None, name: str) -> Path:
    """A small file of a base, downloaded if need be."""
    if folder is not None:
        if not (folder / name).is_file():
            raise InputError(f"model.base: {base} has no {name}. {SUPPORTED}")
        return folder / name
    try:
        return Path(hf_hub_download(base, name, revision=None if name == INDEX else commit_of(base)))
    except GatedRepoError as error:
        raise InputError(
            f"model.base: {base} is gated. Accept its terms at https://huggingface.co/{base}, and log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"model.base: the Hugging Face hub has no model {base}, or it is private: log in with `hf auth login`. "
            f"{SUPPORTED}"
        ) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:  # offline by choice or by chance
        raise InputError(
            f"model.base: {base} is not in the cache of the Hugging Face hub, which cannot be reached. Download it "
            f"where there is internet (`hf download {base}`), or give its folder."
        ) from error
    except EntryNotFoundError as error:
        raise InputError(f"model.base: {base} has no {name}. {SUPPORTED}") from error
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise InputError(f"model.base: {base}: {first_line(error)} {SUPPORTED}") from error
