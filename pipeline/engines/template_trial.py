"""A chat template is tried before anything is paid for: made-up turns in each shape of a run.

In:  a model's folder and chat template, the sequences of roles that the run will send
Out: nothing, or one ConfigError that names the folder, the shape and what to do

Only Jinja and the tokenizer's own library are needed, so this takes a fraction of a second.

Does not: try a tokenizer without tokenizer.json; its template is rendered, its tokens are not
compared.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from pipeline.engines.architecture import json_object
from pipeline.engines.base import StartingModel
from pipeline.engines.checks import chat_template_source
from pipeline.engines.reply import opens_thought, with_thought
from pipeline.errors import ConfigError
from pipeline.prompting.templates import bounded

Roles = tuple[str, ...]
"""Roles of a conversation that ends with a user's turn."""


@dataclass(frozen=True)
class TemplateUse:
    """What a run does with a model."""

    shapes: frozenset[Roles]
    learns: bool = False
    """It is trained: the tokens of a prompt must begin those of prompt and reply."""
    learns_thoughts: bool = False
    """It is trained with the thoughts before its replies."""
    reads_reply: bool = False
    """It reads conversations that end with a reply, and adds nothing."""
    scored_after: str | None = None
    """What its reply begins with before an option is scored; None when none is."""


def try_template(model: StartingModel, use: TemplateUse) -> None:
    """Render each shape as the engine and the training will.

    Raises:
        ConfigError: the template refuses a shape, loses a text, opens a thought where a verdict is
            scored, ends a reply without an end of turn, or writes a prompt in another way once a
            reply follows.
    """
    trial = _Trial(model)
    try:
        trial.run(use)
    except _Refusal as refusal:
        raise ConfigError(f"{refusal}; {_remedy(trial, use)}") from None


def _remedy(trial: "_Trial", use: TemplateUse) -> str:
    """The switch of the template that helps, found by trying, or another template."""
    model = trial.model
    for name, value in product(trial.switches, (False, True)):
        changed = replace(model, chat_template_args=model.chat_template_args | {name: value})
        try:
            _Trial(changed).run(use)
        except _Refusal:
            continue
        return f"set `chat_template_args: {{{name}: {json.dumps(value)}}}`"
    return "name a template that takes it in `chat_template`"


class _Refusal(Exception):
    """What a template cannot do, without a remedy."""


class _Trial:
    def __init__(self, model: StartingModel) -> None:
        self.model = model
        folder = model.folder
        source = chat_template_source(folder, model.chat_template) or ""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(
            value, **{"ensure_ascii": False} | options
        )
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }
        try:
            names = meta.find_undeclared_variables(environment.parse(source))
            self.template = environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ConfigError(
                f"model folder '{folder}': its chat template is not valid Jinja ({error}); name a "
                "template in `chat_template`"
            ) from None
        self.switches = sorted(name for name in names if "think" in name)
        settings = folder / "tokenizer_config.json"
        self.settings = json_object(settings) if settings.is_file() else {}
        stored = folder / "tokenizer.json"
        self.tokenizer = None
        if stored.is_file():
            self.tokenizer = read_tokenizer(stored)

    def run(self, use: TemplateUse) -> None:
        """Try each shape. Raises _Refusal."""
        for shape in sorted(use.shapes):
            if use.reads_reply:
                self.render((*shape, "assistant"), reply_follows=False)
                continue
            prompt = self.render(shape)
            if use.scored_after is not None and opens_thought(prompt + use.scored_after):
                what = "opens a thought before the reply, so a verdict would be scored inside it"
                self.refuse(shape, what)
            if use.learns:
                self.check_reply(shape, prompt, "trial thought" if use.learns_thoughts else "")

    def render(self, shape: Roles, *, reply_follows: bool = True, thought: str = "") -> str:
        """The text of made-up turns, the last of them after a thought."""
        texts = [f"trial text {number}" for number in range(len(shape))]
        messages = [
            {"role": role, "content": text} for role, text in zip(shape, texts, strict=True)
        ]
        messages[-1]["content"] = with_thought(thought, texts[-1])
        special = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in self.settings.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        try:
            with bounded():
                rendered = self.template.render(
                    messages=messages,
                    add_generation_prompt=reply_follows,
                    tools=None,
                    documents=None,
                    **special | dict(self.model.chat_template_args),
                )
        except Exception as error:
            # A template is anyone's code: whatever it raises, this model cannot be asked so.
            self.refuse(shape, f"refuses it ({str(error)[:200] or type(error).__name__})")
        lost = [role for role, text in zip(shape, texts, strict=True) if text not in rendered]
        if lost:
            self.refuse(shape, f"leaves out the text of a {lost[0]} turn")
        if thought not in rendered:
            self.refuse(shape, "leaves out the thought that `sft_thoughts` is to learn")
        return rendered

    def check_reply(self, shape: Roles, prompt: str, thought: str = "") -> None:
        """Prefix rule and end of turn, as training needs them."""
        full = self.render((*shape, "assistant"), reply_follows=False, thought=thought)
        reply = f"trial text {len(shape)}"
        before, after = self._ids(prompt), self._ids(full)
        if after[: len(before)] != before:
            self.refuse(
                shape,
                f"ends the prompt with {prompt[-30:]!r}, and writes another beginning once the "
                "reply is there, so training would use another context than inference",
            )
        names = self._end_names()
        tail = full[full.rindex(reply) + len(reply) :]
        if names and not any(name in tail for name in names):
            self.refuse(
                shape,
                f"ends a reply with {tail[:30]!r}, without an end of turn ({', '.join(names)}), so "
                "the model would never learn to stop",
            )

    def refuse(self, shape: Roles, what: str) -> NoReturn:
        """Raise _Refusal."""
        raise _Refusal(
            f"model folder '{self.model.folder}': in a conversation of {', '.join(shape)}, its "
            f"chat template {what}"
        )

    def _ids(self, text: str) -> list[Any]:
        if self.tokenizer is None:
            return list(text)
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _end_names(self) -> list[str]:
        """Texts of the tokens at which an engine stops."""
        eos = self.settings.get("eos_token")
        names = {eos["content"] if isinstance(eos, dict) else eos} if eos else set()
        for file in ("config.json", "generation_config.json"):
            path = self.model.folder / file
            ids = json_object(path).get("eos_token_id") if path.is_file() else None
            if self.tokenizer is not None:
                every = ids if isinstance(ids, list) else [ids]
                names |= {self.tokenizer.id_to_token(i) for i in every if isinstance(i, int)}
        return sorted(filter(None, names))


def turns(shapes: Iterable[Roles], rounds: int) -> frozenset[Roles]:
    """The shapes, and each of them after every round of a reply and a further user's turn."""
    return frozenset(
        shape + ("assistant", "user") * number for shape in shapes for number in range(rounds + 1)
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises ConfigError when it holds none."""
    return _tokenizer(path, path.stat().st_mtime_ns)


@lru_cache(2)
def _tokenizer(path: Path, changed: int) -> Tokenizer:
    """The tokenizer of a file as it was at a time: policy and judge often share one."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise ConfigError(
            f"'{path}' holds no tokenizer ({str(error)[:120]}); download it again"
        ) from None


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote; here it is its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise TemplateError(re.sub(r"\s+", " ", message))
