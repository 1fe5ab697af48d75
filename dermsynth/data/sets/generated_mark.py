"""What the file of a generated image says of itself, to people and to programs."""

from pathlib import Path

from PIL import Image

import dermsynth

#: That a trained model made an image, in the vocabulary of the press: https://cv.iptc.org/newscodes/digitalsourcetype/
TRAINED_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# An XMP packet (ISO 16684-1) of the one property, and the keyword under which a PNG holds such a packet. Programs that
# look for images of trained models read it; the regulation (EU) 2024/1689, Art. 50(2), asks for a mark of this kind.
_XMP_KEYWORD = "XML:com.adobe.xmp"
_XMP = (
    '<?xpacket begin="\N{ZERO WIDTH NO-BREAK SPACE}" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{TRAINED_MODEL}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
_SEED = "Seed"


def generated_notes(description: str, seed: int | None = None) -> dict[str, str]:
    """The notes of a generated image's PNG, by keyword: text that image viewers show, and the mark in XMP.

    Args:
        description: of the image, for people.
        seed: what it was drawn from, if it was.
    """
    return {
        "Description": description,
        **({} if seed is None else {_SEED: str(seed)}),
        "Software": f"dermsynth {dermsynth.__version__}",
        _XMP_KEYWORD: _XMP,
    }


def seed_of_png(path: Path) -> int | None:
    """The seed in the notes of a PNG that is whole; None where there is none. No pixel is decoded."""
    with Image.open(path) as image:
        text = image.info.get(_SEED, "")
    return int(text) if text.isdecimal() else None
