"""Links of the pages to files beside docs/, which are not on the site, become their text."""

import re
from typing import Any


def on_page_markdown(markdown: str, **context: Any) -> str:
    """The page as mkdocs is to read it."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
