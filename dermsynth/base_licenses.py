"""What the licences of bases ask of whoever passes on weights or images that come from them."""

from typing import NamedTuple

UNKNOWN = "unknown"


class _OpenRail(NamedTuple):
    title: str
    text: str


#: Licences with restrictions on use that must be passed on, by the names that the Hugging Face hub gives them.
_OPEN_RAIL = {
    "creativeml-openrail-m": _OpenRail(
        "CreativeML Open RAIL-M", "https://huggingface.co/spaces/CompVis/stable-diffusion-license"
    ),
    "openrail++": _OpenRail(
        "CreativeML Open RAIL++-M", "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"
    ),
}


def restricts_use(license: str) -> bool:
    """Whether weights that were fine-tuned from such a base keep the licence's restrictions on use."""
    return license in _OPEN_RAIL


def explain(license: str) -> str:
    """A paragraph for the card of an export or of a generated set.

    Args:
        license: of the base, by its name on the hub, or `UNKNOWN`.
    """
    if license == UNKNOWN:
        return (
            "Licence of the base model: unknown. Look at where it comes from before you pass anything on: that of "
            "Stable Diffusion restricts what its derivatives and their images may be used for."
        )
    if license not in _OPEN_RAIL:
        return f"Licence of the base model: {license}."
    title, text = _OPEN_RAIL[license]
    return (
        f"Licence of the base model: {title}, {text}. Its restrictions on use (Attachment A) hold for fine-tuned "
        "weights and for what is done with their images. They forbid, among other things, to give medical advice or to "
        "interpret medical results; to break the law; to exploit or harm minors; to spread falsehoods or personal data "
        "in order to harm; to defame or harass; to decide on people's rights by machine alone; to discriminate, or to "
        "exploit a group's weakness; to serve justice, law enforcement, immigration or asylum by predictions about "
        "people. Whoever passes weights on includes these restrictions and a copy of the licence."
    )
