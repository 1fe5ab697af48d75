"""The configuration that a run keeps in its folder, and its leaves, by which two runs are compared. No torch."""

from collections.abc import Collection
from typing import Any

from dermsynth.run.classes import named

RUN_FILE = "fit.yaml"


def leaves(value: Any, ignored: Collection[str] = (), key: str = "") -> dict[str, Any]:
    """What a configuration says, by dotted key; a list is a leaf unless it holds classes, such as callbacks.

    Classes of this package are called by their names alone.

    Args:
        value: mappings and lists of plain values, as read from YAML.
        ignored: names of keys that are left out wherever they stand.
        key: where in the configuration the value stands.
    """
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(enumerate(value))
    else:
        is_class = key.rpartition(".")[2] == "class_path" and isinstance(value, str)
        return {key: named(value) if is_class else value}
    return {
        path: leaf
        for name, item in items
        if name not in ignored
        for path, leaf in leaves(item, ignored, f"{key}.{name}" if key else str(name)).items()
    }
