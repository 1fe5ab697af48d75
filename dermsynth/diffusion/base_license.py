"""Under which licence a base is, as far as its folder or its name says."""

import re

from dermsynth.base_licenses import UNKNOWN
from dermsynth.diffusion.bases import base_folder

# Published bases by their names; copies of them keep these, on the hub and in folders.
_NAMES = {
    r"stable-diffusion-(v-?)?1": "creativeml-openrail-m",
    r"stable-diffusion-(v-?)?2": "openrail++",
}
# Of a card's front matter: an export of ours names its base's licence beside its own.
_KEYS = ("base_license", "license")


def license_of_base(base: str) -> str:
    """The licence of a base by its name on the hub, or `UNKNOWN`; asks no network.

    Args:
        base: hub id, folder, or the name of a packaged base.
    """
    folder = base_folder(base)
    card = folder / "README.md" if folder else None
    if card and card.is_file():
        front = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
        for key in _KEYS:
            if found := re.search(rf"^{key}: *['\"]?([\w.+-]+)", front, flags=re.MULTILINE):
                return found[1]
    name = str(folder.resolve() if folder else base).lower()
    return next((license for pattern, license in _NAMES.items() if re.search(pattern, name)), UNKNOWN)
