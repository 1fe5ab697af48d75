"""Images that show nothing, whatever they were meant to show."""

from dermsynth.data.sets.decoding import RGB

# Levels of 255: skin without a lesion has several, by its grain and the light.
_CONSTANT = 1.0
# Black frames around a round field of view take a third of an image.
_SATURATED = 0.95


def blank_reason(image: RGB) -> str:
    """Why an image shows nothing; blank where it shows something.

    Args:
        image: uint8 `[H, W, 3]`.
    """
    if image.std(axis=(0, 1)).max() < _CONSTANT:
        return "of one colour"
    if ((image == 0) | (image == 255)).mean() > _SATURATED:
        return "saturated"
    return ""
