"""Other spellings of an option: when they, and not the options as given, are what a model says.

Only an option's own text counts for it. A model that says ' A', 'a' or '**A' may mean the option or
begin a sentence, and one that begins with '**' or '<think>' has not said anything yet: where such
forms matter, or another token is more probable than all options, the verdict is unreadable, since
what is left of the mass would go to whichever option happens to be spelled as asked. Every engine
applies this one rule.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

TOP_TOKENS = 20
"""Most probable first tokens that are looked at."""
_NEGLIGIBLE = 0.01
_OTHER_FORMS = 0.05
"""Other spellings may have this share of what the options have."""
_BYTES = str.maketrans("\u2581\u0120\u010a\u0109\u010d", "  \n\t\r")
"""How vocabularies write spaces and line breaks."""


def forms_may_matter(own: float) -> bool:
    """Whether what the options leave of the probability is enough to make a verdict unreadable."""
    return 1.0 - own > max(_NEGLIGIBLE, _OTHER_FORMS * own)


def other_forms(options: Sequence[str], own: float, listed: Mapping[str, float]) -> str:
    """What is wrong when other spellings of the options matter, else an empty string.

    Args:
        own: probability of the options as they are given, all together.
        listed: log-probabilities (nats) of first tokens, by text; those that begin an option say
            nothing against it.
    """
    rest = {
        token: math.exp(logprob)
        for token, logprob in listed.items()
        if not any(option.startswith(token) for option in options)
    }
    forms = {
        token: probability
        for token, probability in rest.items()
        if any(_is_form_of(token, option) for option in options)
    }
    if sum(forms.values()) <= max(_NEGLIGIBLE, _OTHER_FORMS * own):
        forms = {token: p for token, p in rest.items() if 0 < own < p}
    if not forms:
        return ""
    token = max(forms, key=lambda token: forms[token])
    return (
        f"the model writes {token!r} with probability {forms[token]:.2g}, and the options "
        f"{list(options)} as given with {own:.2g}"
    )


def _is_form_of(token: str, option: str) -> bool:
    """Whether a token is an option in other letters or marks, or marks that may come before one."""
    core, bare = _letters(token), _letters(option)
    if not core:
        return bool(token)
    return bool(bare) and core.startswith(bare) and not core[len(bare) : len(bare) + 1].isalnum()


def _letters(text: str) -> str:
    """A text without what spelling adds: width, case, quotes, marks, tags, white space."""
    plain = unicodedata.normalize("NFKC", text.translate(_BYTES)).casefold()
    return re.sub(r"</?[\w|:-]*>?|^[\W_]+|[\W_]+$", "", plain).strip()
