"""Lightning without what nothing here uses of its dependencies: imported before it, every command starts sooner.

Lightning imports torchmetrics, and that whatever of these is installed, for metrics of sound, text and pictures and for
`Metric.plot`: two fifths of the time that Lightning takes. While torchmetrics is imported they seem not to be there;
to whom imports them afterwards they are.
"""

from importlib.metadata import PackageNotFoundError

from lightning_utilities.core import imports

_UNUSED = {"matplotlib", "regex", "scipy", "torchvision", "transformers"}


def _import_torchmetrics() -> None:
    # Neither name is promised: without one the import is slow again, and a test says so.
    if not (hasattr(imports, "_version") and hasattr(imports, "package_available")):
        return
    version_of, is_available = imports._version, imports.package_available

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
