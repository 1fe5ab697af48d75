"""Lightning without what nothing here uses of its dependencies: imported before it, every command starts sooner.

Lightning imports torchmetrics, and that whatever of these is installed, for metrics of sound, text and pictures and for
`Metric.plot`: two fifths of the time that Lightning takes. While torchmetrics is imported they seem not to be there;
to whom imports them afterwards they are.
"""

import functools
from importlib.metadata import PackageNotFoundError

from lightning_utilities.core import imports

from dermsynth.seams import relied_on

_UNUSED = {"matplotlib", "regex", "scipy", "torchvision", "transformers"}


def _import_torchmetrics() -> None:
    check = functools.partial(relied_on, "run.lean", "lightning-utilities", imports)
    version_of, is_available = check("_version"), check("package_available", ("package_name",))

    def version(package: str) -> str:
        if package in _UNUSED:
            raise PackageNotFoundError(package)
        return version_of(package)

    imports._version = version  # type: ignore[assignment]
    imports.package_available = lambda package: package not in _UNUSED and is_available(package)  # type: ignore[assignment]
    try:
        import torchmetrics  # noqa: F401
    finally:
        imports._version, imports.package_available = version_of, is_available


_import_torchmetrics()
