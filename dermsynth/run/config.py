"""The configuration that a run keeps in its folder, and its leaves, by which two runs are compared. No torch."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dermsynth.run.classes import named

RUN_FILE = "fit.yaml"


def leaves(value: Any, ignored: Collection[str] = (), key: str = "") -> dict[str, Any]:
    """What a configuration says, by dotted key; a list is a leaf unless it holds mappings.

    Classes of this package are called by their names alone, and the members of a list of classes, such as callbacks, by
    their classes, so that their order makes no difference.

    Args:
        value: mappings and lists of plain values, as read from YAML.
        ignored: names of keys that are left out wherever they stand.
        key: where in the configuration the value stands.
    """
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(_members(value))
    else:
        is_class = key.rpartition(".")[2] == "class_path" and isinstance(value, str)
        return {key: named(value) if is_class else value}
    return {
        path: leaf
        for name, item in items
        if name not in ignored
        for path, leaf in leaves(item, ignored, f"{key}.{name}" if key else str(name)).items()
    }


def _members(values: Sequence[Any]) -> Iterator[tuple[str | int, Any]]:
    """Of a list: each member and its class, with a number from the second of one class on; else its place."""
    seen: Counter[str] = Counter()
    for place, value in enumerate(values):
        path = value.get("class_path") if isinstance(value, dict) else None
        if not isinstance(path, str):
            yield place, value
            continue
        name = path.rpartition(".")[2]
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}", value
