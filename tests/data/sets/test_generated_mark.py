"""Programs that know nothing of us find out that an image was generated."""

from xml.etree import ElementTree

import numpy as np
from PIL import Image

from dermsynth.data.sets.generated_mark import generated_notes
from dermsynth.data.sets.images import write_png

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def test_pillow_reads_that_a_trained_model_made_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    write_png(tmp_path / "a.png", pixels, generated_notes("a <nevus> & hair"))
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.text["Description"] == "a <nevus> & hair"
        packet = image.info["xmp"]
    (about,) = ElementTree.fromstring(packet).iter(f"{_RDF}Description")
    assert about.attrib == {
        f"{_RDF}about": "",
        "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType": (
            "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
        ),
    }
