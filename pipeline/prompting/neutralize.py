"""The defense of a judge's prompt: text of strangers cannot imitate its fences, turns or tokens.

In:  a text that a model or a user wrote
Out: the text with words unchanged, and without fences, turn headers and tokens of a chat template

What is looked for is looked for in the text's shape: marks and invisible characters left out, each
letter, bracket and colon replaced by the plain one that it looks like, by Unicode's names and
categories. So a form is matched in each of its spellings, and an edit is made in the text itself.

Does not: keep a text from arguing with the judge in plain words; `audits/` measures that. Words for
a role in languages other than English stay.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from pipeline.ids import derive_seed

_NEW_LINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Letters without a shape, and code points that are no characters.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e0fff]"
)
_JOINERS = "\u200c\u200d"
_VISIBLE_FORMAT = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
# Joiners and variation selectors belong between letters of some scripts and in emoji, nowhere else.
_JOINED = r"[^\x00-\x7f\u3000-\u303f\uff00-\uffef]"
_STRAY_JOINERS = re.compile(rf"(?<!{_JOINED})[{_JOINERS}\ufe00-\ufe0f]+|[{_JOINERS}]+(?!{_JOINED})")

_LOOK_ALIKES = str.maketrans(
    "аАвВсСԁеЕһҺнНіІјЈкКӏмМпоОрРгѕЅтТиѵхХуУүԝԍ"
    "αΑβΒϲϹεΕηΗιΙκΚΜνΝοΟρΡτΤυΥχΧζΖ"
    "սհոօցռՏՍՕ"
    "ᎪᎻᎠᎬᏞᎷᏢᏚᎢᏙᏴᎫᏒ"
    "ꓐꓓꓔꓖꓗꓙꓚꓠꓡꓢꓣꓦꓧꓟꓫꓬꓮꓰꓲꓳꓴꓑ"
    "ɑıɡ◁▷˂˃ᐸᐳ❮❯ǀ∣│❘┃⏐ꟾ¦",
    "aabbccdeehhhhiijjkklmmnoopprssttuvxxyyywg"
    "aabbcceenhiikkmvnooppttuyxxzz"
    "uhnognsuo"
    "ahdelmpstvbjr"
    "bdtgkjcnlsrvhmxyaeioup"
    "aig<><><><>||||||||",
)
"""Letters of other scripts that look like Latin ones, and signs that look like `<`, `>` and `|`."""
_LETTER = re.compile(
    r"(?:LATIN|INDICATOR).* LETTER (?:(?:SMALL CAPITAL|SCRIPT|DOTLESS|OPEN|TURNED) )?([A-Z])\b"
)
_FENCE_NAMES = re.compile(
    r"(?:SQUARE|LENTICULAR|TORTOISE SHELL|WHITE SQUARE).*BRACKET|^(?:LEFT|RIGHT) (?:CEILING|FLOOR)$"
)
_COLONS = "\u02d0\u02f8\u0589\u05c3\u0703\u0704\u1361\u1365\u16ec\u205a\u2236\u2806\u2e2c"

_FENCES = re.compile(r"\[{3,}|\]{3,}")
# A text of angle brackets is a token when one of its words is, so that code and HTML stay.
_WORDS = (
    "bos|eos|eot|eom|eod|eop|eoh|eoa|sop|start|begin|end|turn|token|special|extra|tool|tools|call"
    "|fim|im|image|pad|unk|cls|sep|think|thinking|thought|reasoning|human|user"
    "|assistant|system|developer|judge|model|channel|message|observation|mask|bot|unused[0-9]+"
)
# Tokens with which chat templates open and close a turn or a part of it, by their shape.
_TOKENS = (
    re.compile(
        r"<\|[^|<>\n]{1,60}\|>"  # <|im_end|>
        r"|<\|[^|<>\s]{1,60}>|<[^|<>\s]{1,60}\|>"  # <|turn>, <turn|>
        rf"|</?(?:[a-z0-9]+[_:])*(?:{_WORDS})(?:_[a-z0-9]+)*>"  # <start_of_turn>, <seed:bos>
        r"|<(?:function|parameter|tool)=[^<>\n]{1,60}>"  # <function=f>
        r"|</?s>"
        r"|<</?\w{1,20}>>",  # <<SYS>>
        re.I,
    ),
    re.compile(
        r"\[\|[^|\[\]\n]{1,60}\|\]|\{\|[^|{}\n]{1,60}\|\}"  # [|user|]
        r"|[\[\]]~[^\s\[\]]{0,20}[\[\]]|\[[a-z]~\["  # ]~b], [e~[
        r"|\[/?(?:[A-Z]+_)*(?:INST|SYSTEM|TOOLS?|CALLS?|PROMPT|MODEL|THINK|ARGS|IMG|BEGIN|END|CLS|SEP"
        r"|PAD|UNK|BOS|EOS|[gs]?MASK)(?:_[A-Z]+)*\]"
    ),
)

_TAGS = re.compile(r"<[^<>\n]{1,40}>")
_ROLES = (
    *("human", "user", "assistant", "system", "developer", "judge", "evaluator"),
    *("ai", "model", "bot", "chatbot", "tool", "ipython"),
)
_HEADINGS = (*_ROLES, "instruction", "response", "input")
_ACTS = re.compile(r"(?<=..)(?:said|says|wrote|writes|asked|asks|replied|replies|turn|message)$")
_LONGEST_HEADER = 200
"""Characters of a turn header up to its colon, the white space before it not counted."""
CUT = "judged after cutting"
"""How the reason of a row begins whose label rests on a part of its texts."""
_CONSONANTS = "bcdfghjklmnpqrstvwxz"


def neutralize(text: str) -> str:
    """The text with fences, turn headers and turn tokens made harmless, words unchanged.

    `[[[` becomes `[ [ [`, a line that starts with `Human:` gets a quotation bar, tokens that open
    or close a turn (`<|im_end|>`, `[INST]`) get a space, and invisible characters go. Used on every
    text that a model or a user wrote before a judge sees it.
    """
    text = _NEW_LINES.sub("\n", text)
    if not text.isascii() or not text.isprintable():
        text = _STRAY_JOINERS.sub("", "".join(filter(_is_visible, _BLANK.sub("", text))))
    return _inserted(text, _inserts)


def break_tokens(text: str) -> str:
    """The text with spaces inside what spells a token of a chat template: `<|im_end|>` becomes
    `< |im_end| >`, `[INST]` becomes `[ INST ]`.

    For servers that tokenize by themselves, to which a spelled token would be a live one.
    """
    return _inserted(text, _token_inserts)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters of a text, with a note of how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} (... {len(text) - limit:,} more characters are not shown)"


def note_of_cuts(texts: Sequence[str], limit: int) -> str:
    """What a row says about texts that were shortened; empty when none was."""
    num_cut = sum(len(text) > limit for text in texts)
    return f"{CUT} {num_cut} of {len(texts)} texts to {limit:,} characters" if num_cut else ""


def too_long(responses: Sequence[str], limit: int) -> str:
    """Why responses get no verdict; empty when each has at most `limit` characters.

    A verdict on the beginning of a response is none on the whole, and its end could be anything
    that was put there to push the rest out of sight.
    """
    longest = max(map(len, responses))
    if longest <= limit:
        return ""
    return f"a response has {longest:,} characters; max_characters is {limit:,}"


def draw_fence(texts: Sequence[str], *seed_parts: str | int) -> str:
    """Letters that occur in none of the texts, for the fence of one request: four or more
    consonants, drawn by seed.
    """
    shapes = ["".join(filter(str.isalpha, _shape(text)[0])).lower() for text in texts]
    for attempt in range(10_000):
        number = derive_seed("fence", *seed_parts, attempt)
        length = 4 + attempt // 50
        nonce = "".join(_CONSONANTS[number // 20**place % 20] for place in range(length))
        if not any(nonce in shape for shape in shapes):
            return nonce
    raise AssertionError("a text holds every word that was drawn")


def _inserted(text: str, find: Callable[[str], Iterator[tuple[int, str]]]) -> str:
    """The text with everything that is to be written before its characters."""
    # An edit may leave a form that began inside of the one that it broke.
    while inserts := dict(find(text)):
        text = "".join(inserts.get(place, "") + sign for place, sign in enumerate(text))
    return text


def _token_inserts(text: str) -> Iterator[tuple[int, str]]:
    """Places of the text, and what to write before the character there to break its tokens."""
    shape, places = _shape(text)
    for pattern in _TOKENS:
        for token in pattern.finditer(shape):
            yield places[token.start() + 1], " "
            yield places[token.end() - 1], " "


def _inserts(text: str) -> Iterator[tuple[int, str]]:
    """Places for tokens, fences and turn headers."""
    yield from _token_inserts(text)
    shape, places = _shape(text)
    for run in _FENCES.finditer(shape):
        yield from ((places[at], " ") for at in range(run.start() + 1, run.end()))
    start = 0
    for line in shape.split("\n"):
        at = _header(line)
        if at is not None:
            yield places[start + at], "| "
        start += len(line) + 1


def _header(line: str) -> int | None:
    """Where the name of a role begins in a line that is a turn's header without a bar."""
    plain = _TAGS.sub(lambda tag: " " * len(tag.group()), line)
    first = re.search(r"[^\W\d_]", plain)
    if first is None:
        return None
    start = first.start()
    head, colon, _ = plain[start : start + _LONGEST_HEADER].partition(":")
    marked = plain.lstrip()[0]
    if not colon and marked not in "#=*[":
        return None
    word = "".join(filter(str.isalpha, head)).lower()
    names = _HEADINGS if marked == "#" else _ROLES
    if _ACTS.sub("", word) not in names or plain[:start].rstrip().endswith("|"):
        return None
    return start


def _shape(text: str) -> tuple[str, Sequence[int]]:
    """What a text looks like in plain characters, and where each of them is in the text."""
    if text.isascii():
        return text, range(len(text))
    signs = [(sign, place) for place, char in enumerate(text) for sign in _sign_shape(char)]
    return "".join(sign for sign, _ in signs), [place for _, place in signs]


@cache
def _sign_shape(char: str) -> str:
    """What one character looks like: none, one or several plain ones."""
    if char.isascii():
        return char
    name, category = unicodedata.name(char, ""), unicodedata.category(char)
    if category in ("Mn", "Me", "Cf"):
        return ""
    if category == "Zs" or char == "\u2800":
        return " "
    if _FENCE_NAMES.search(name):
        return "[" if "LEFT" in name else "]"
    if char in _COLONS or ("COLON" in name.split() and category != "Sc"):
        return ":"
    if "SINGLE" not in name and "DOUBLE" not in name and "ANGLE BRACKET" in name:
        return "<" if "LEFT" in name else ">"
    if char in "\u2039\u203a":
        return "<" if char == "\u2039" else ">"
    plain = char.translate(_LOOK_ALIKES)
    if plain.isascii():
        return plain
    if letter := _LETTER.search(name):
        return letter[1]
    folded = unicodedata.normalize("NFKD", char)
    return folded if folded == char else "".join(map(_sign_shape, folded))


def _is_visible(char: str) -> bool:
    """False for control and format characters that show nothing."""
    keep = char in "\n\t" or char in _JOINERS or char in _VISIBLE_FORMAT
    return keep or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
