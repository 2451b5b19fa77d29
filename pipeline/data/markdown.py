"""Names and texts of other people as Markdown that shows them and nothing else: no HTML, no image,
no link, no further cell of a table.
"""


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
