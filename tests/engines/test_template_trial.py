"""A chat template is tried in each shape of a run, before anything is paid for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines.base import StartingModel
from pipeline.engines.template_trial import TemplateUse, try_template, turns
from pipeline.errors import ConfigError
from tests.engines.tiny_model import CHAT_TEMPLATE, build_tokenizer

PLAIN = turns({("user",)}, 2)
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and not no_think %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if not no_think %}<think>\n{% endif %}{% endif %}"
)
HIDES = (
    "{% set thinking = thinking | default(true) %}"
    + CHAT_TEMPLATE.removesuffix("{% endif %}")
    + "{% if thinking %}<think>\n{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + CHAT_TEMPLATE
)
LAST_ONLY = (
    "<|user|>{{ messages[-1].content }}<|end|>"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENDLESS_WORK = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}"
    "{% endfor %}" + CHAT_TEMPLATE
)
FORGETS = CHAT_TEMPLATE.replace("m.content", "m.content.split('</think>')[-1]")
ENDLESS = CHAT_TEMPLATE.replace("<|end|>", "\n")


def model(folder: Path, template: str, **args: Any) -> StartingModel:
    """A folder with the tiny tokenizer and this template."""
    build_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return StartingModel(folder, None, args)


@pytest.mark.parametrize(
    ("template", "use", "message"),
    [
        (
            NO_SYSTEM,
            TemplateUse(frozenset({("system", "user")})),
            r"system, user, .* refuses it \(no system turns\); name a",
        ),
        (LAST_ONLY, TemplateUse(PLAIN), "assistant, user, .* leaves out the text of a user turn"),
        (THINKS, TemplateUse(PLAIN, scored_after=""), "opens a thought .*{no_think: true}"),
        (HIDES, TemplateUse(PLAIN, learns=True), "writes another beginning .*{thinking: false}"),
        (ENDLESS_WORK, TemplateUse(PLAIN), r"takes over \S+ s"),
        (FORGETS, TemplateUse(PLAIN, learns=True, learns_thoughts=True), "leaves out the thought"),
        (ENDLESS, TemplateUse(PLAIN, learns=True), r"without an end of turn \(<\|end\|>\)"),
        ("{{ messages[0].contents.x }}", TemplateUse(PLAIN), "conversation of user, .* refuses it"),
        ("{% if %}", TemplateUse(PLAIN), "is not valid Jinja"),
    ],
)
def test_what_a_template_cannot_do_is_one_line(
    template: str, use: TemplateUse, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        try_template(model(tmp_path / "m", template), use)
    assert f"model folder '{tmp_path / 'm'}'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_thoughts_are_tried_where_they_are_learned(tmp_path: Path) -> None:
    """A template that keeps them passes; one that drops them may, where replies alone are."""
    use = TemplateUse(PLAIN, learns=True, learns_thoughts=True)
    try_template(model(tmp_path / "keeps", CHAT_TEMPLATE), use)
    try_template(model(tmp_path / "drops", FORGETS), TemplateUse(PLAIN, learns=True))


def test_what_a_run_does_not_send_is_not_tried(tmp_path: Path) -> None:
    try_template(model(tmp_path / "a", NO_SYSTEM), TemplateUse(PLAIN, learns=True))
    try_template(model(tmp_path / "b", LAST_ONLY), TemplateUse(frozenset({("user",)})))
    try_template(model(tmp_path / "c", THINKS), TemplateUse(PLAIN))
    try_template(model(tmp_path / "d", THINKS), TemplateUse(PLAIN, scored_after="</think>\n\n"))


def test_the_switch_that_the_message_names_helps(tmp_path: Path) -> None:
    use = TemplateUse(PLAIN, learns=True, scored_after="")
    try_template(model(tmp_path / "m", THINKS, no_think=True), use)


def test_shipped_models_pass(tmp_path: Path) -> None:
    use = TemplateUse(turns({("system", "user"), ("user",)}, 2), learns=True, scored_after="")
    for folder in ("models/pocket", "models/pocket/labeler"):
        try_template(StartingModel(PROJECT_ROOT / folder, None, {}), use)
    try_template(model(tmp_path / "tiny", CHAT_TEMPLATE), use)


def test_other_places_of_a_template_are_read(tmp_path: Path) -> None:
    broken = "{{ raise_exception('found') }}"
    for name, content in (
        ("chat_template.json", {"chat_template": broken}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": broken}]}),
    ):
        build_tokenizer(tmp_path / name)
        (tmp_path / name / name).write_text(json.dumps(content), "utf-8")
        with pytest.raises(ConfigError, match="found"):
            try_template(StartingModel(tmp_path / name, None, {}), TemplateUse(PLAIN))


def test_turns() -> None:
    once = ("user", "assistant", "user")
    assert turns({("user",)}, 1) == {("user",), once}


def test_check_says_it_before_a_run(tmp_path: Path) -> None:
    """The whole command, with a copy of the shipped model whose template opens a thought."""
    folder = tmp_path / "model"
    shutil.copytree(PROJECT_ROOT / "models/pocket", folder)
    (folder / "chat_template.jinja").write_text(THINKS, "utf-8")
    recipe = tmp_path / "recipe.yaml"
    source = (PROJECT_ROOT / "flows/configs/demo.yaml").read_text("utf-8")
    recipe.write_text(source.replace("model: models/pocket", f"model: {folder}"), "utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "check", str(recipe)],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "no_think" in ended.stderr + ended.stdout


def test_template_without_an_end_is_one_line(tmp_path: Path) -> None:
    endless = (
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages[0].content }}"
        "{% endfor %}{% endfor %}"
    )
    start, use = model(tmp_path, endless), TemplateUse(frozenset({("user",)}))
    with pytest.raises(ConfigError, match=r"refuses it \(takes over"):
        try_template(start, use)
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9 {{ messages }}")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        try_template(start, use)
