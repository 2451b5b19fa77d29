"""The attack texts of `injections.yaml`, by family."""

from pathlib import Path

import yaml

FAMILIES: dict[str, list[str]] = {
    family: [
        entry if isinstance(entry, str) else entry["text"] * entry["times"] for entry in entries
    ]
    for family, entries in yaml.safe_load(
        (Path(__file__).parent / "injections.yaml").read_text(encoding="utf-8")
    ).items()
}
TEXTS = [text for texts in FAMILIES.values() for text in texts]
