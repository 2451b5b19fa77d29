"""Names and texts of other people as Markdown that shows them and nothing else: no HTML, no image,
no link, no further cell of a table.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def escape_markdown(text: object) -> str:
    """A text as one line, in a paragraph or a cell."""
    flat = " ".join(str(text).split())
    for mark in "\\`*_[]|":
        flat = flat.replace(mark, "\\" + mark)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code_span(text: object) -> str:
    """A text as code, in a paragraph or a cell; empty for an empty text."""
    # Nothing can be escaped in code, but for the bar of a table.
    flat = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat else ""


@cache
def markdown_template(path: Path) -> Template:
    """A Jinja file that makes Markdown, with the filters `md` and `code` for what is not ours."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"md": escape_markdown, "code": code_span}
    return environment.get_template(path.name)
