"""JSON schemas that editors complete YAML from, and the table of recipe fields in docs/recipes.md.

    python -m pipeline.cli.schema       constitutions/schema.json  flows/configs/schema.json
                                    prompts/exemplars/schema.json  prompts/canaries/schema.json
                                    prompts/follow_ups/schema.json  docs/recipes.md

All are made from the models; a test keeps them true.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.audits.canary_set import CanarySet
from pipeline.config import RunConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution
from pipeline.labeling.few_shot import ExemplarSet
from pipeline.labeling.follow_up_sets import FollowUpSet
from pipeline.store.files import write_text

FIELDS_HEAD = """\
# Recipes: every field

A recipe is one YAML file; `flows/configs/` has four. Unknown keys are refused with file and line,
and editors that read the first line of those files complete keys from `flows/configs/schema.json`.
Paths are relative to the folder where the command runs, else to the project.

This page is made by `make schema` from the classes in `pipeline/config/recipe.py`,
`pipeline/config/engines.py`, `pipeline/config/labeling.py`, `pipeline/config/audits.py` and
`pipeline/config/training.py`.
"""


def generated_files() -> dict[Path, str]:
    """Path below the project and content of every generated file."""
    return {
        Path("constitutions/schema.json"): _as_text(json_schema(Constitution)),
        Path("prompts/canaries/schema.json"): _as_text(json_schema(CanarySet)),
        Path("prompts/exemplars/schema.json"): _as_text(json_schema(ExemplarSet)),
        Path("prompts/follow_ups/schema.json"): _as_text(json_schema(FollowUpSet)),
        Path("flows/configs/schema.json"): _as_text(json_schema(RunConfig)),
        Path("docs/recipes.md"): recipe_fields(json_schema(RunConfig)),
    }


def recipe_fields(schema: dict[str, Any]) -> str:
    """A Markdown page with one table per section of a recipe."""
    parts = [FIELDS_HEAD, *_section("Recipe", schema)]
    for name, section in sorted(schema["$defs"].items(), key=lambda item: _title(item[0])):
        parts += _section(_title(name), section)
    return "\n".join(parts)


def _section(title: str, section: dict[str, Any]) -> Iterator[str]:
    if "properties" not in section:
        return
    yield f"\n## {title}\n"
    # The first paragraph only: what follows is for readers of the code.
    yield f"{section.get('description', '').split(chr(10) * 2)[0]}\n"
    yield "| field | value | default | meaning |\n| --- | --- | --- | --- |"
    required = section.get("required", [])
    for name, field in section["properties"].items():
        default = "required" if name in required else f"`{json.dumps(field.get('default'))}`"
        cells = (f"`{name}`", _kind(field), _short(default), field.get("description", ""))
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _kind(field: dict[str, Any]) -> str:
    """The type in words, with its bounds."""
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"])
    if "oneOf" in field:
        return " or ".join(_kind(option) for option in field["oneOf"])
    if "$ref" in field:
        name = _title(field["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower().replace(' ', '-')})"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = {"null": "nothing", "array": "list"}.get(field.get("type", ""), field.get("type", "any"))
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in field
    ]
    return " ".join([kind, *bounds])


def _short(default: str) -> str:
    return default if len(default) <= 40 else "see there"


def _title(name: str) -> str:
    """`SftConfig` is the section `Sft`."""
    return name.removesuffix("Config")


def _as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a YAML file, for editors; field docstrings become its descriptions."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


if __name__ == "__main__":
    for path, text in generated_files().items():
        write_text(PROJECT_ROOT / path, text)
        print(path)
