"""A user's mistakes, found before anything heavy is imported or opened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.config.engines import OpenAIConfig, ScriptedConfig, VllmConfig
from pipeline.config.factories import recipe_factory
from pipeline.engines import check_engine, checks, open_engine
from pipeline.engines.fingerprint import model_fingerprint
from pipeline.errors import ConfigError, MachineError, UserError
from tests.engines.tiny_model import CHAT_TEMPLATE

HEADER = b'{"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}'
KIND = {"architectures": ["LlamaForCausalLM"]}
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"abcd"


def make_folder(path: Path, *, without: str = "", template: bool = True) -> Path:
    """A folder that looks like a model."""
    path.mkdir(parents=True, exist_ok=True)
    settings = {"chat_template": CHAT_TEMPLATE} if template else {}
    files = {
        "config.json": json.dumps(KIND),
        "model.safetensors": WEIGHTS.decode(),
        "tokenizer.json": "{}",
        "tokenizer_config.json": json.dumps(settings),
    }
    for name, text in files.items():
        if name != without:
            (path / name).write_text(text, "utf-8")
    return path


def config_for(folder: Path | str, **fields: Any) -> VllmConfig:
    return VllmConfig(type="vllm", model=str(folder), **fields)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("config.json", "has no config.json; name the folder"),
        ("model.safetensors", "has no .*safetensors weights; finish"),
        ("tokenizer.json", "has no tokenizer.json; copy"),
    ],
)
def test_incomplete_model_folder_is_named(tmp_path: Path, without: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_engine(config_for(make_folder(tmp_path / "m", without=without)))


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", without="config.json")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"it is an adapter: name its base model in `model`"):
        check_engine(config_for(folder))


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "message"),
    [
        ("model.embed_tokens.weight", [2, 2], {"vocab_size": 3}, "vocab_size 3, and .* has 2 rows"),
        ("model.layers.1.mlp.weight", [4], {"num_hidden_layers": 3}, "3 layers, and .* have 2"),
        ("model.embed_tokens.weight", [2, 2], {"vocab_size": 1}, "vocab_size 1, and .* has 2 rows"),
        ("model.embed_tokens.weight", [2, 2], {"vocab_size": 2}, ""),
        ("model.layers.2.mlp.weight", [4], {"num_hidden_layers": 2}, ""),  # one that drafts tokens
    ],
)
def test_weights_hold_what_the_configuration_says(
    tmp_path: Path, name: str, shape: list[int], sizes: dict[str, int], message: str
) -> None:
    folder = make_folder(tmp_path / "m")
    tensors = {name: {"dtype": "U8", "shape": shape, "data_offsets": [0, 4]}}
    header = json.dumps(tensors).encode()
    weights = len(header).to_bytes(8, "little") + header + b"abcd"
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({**KIND, "hidden_size": 2, **sizes}))
    if not message:
        checks.check_model_folder(folder)
        return
    with pytest.raises(ConfigError, match=message):
        checks.check_model_folder(folder)


def test_pointer_in_place_of_a_tokenizer_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", without="tokenizer.json")
    for text in ("", "version https://git-lfs.github.com/spec/v1\n"):
        (folder / "tokenizer.model").write_text(text)
        with pytest.raises(ConfigError, match=r"tokenizer.model' is empty, or a pointer"):
            checks.check_model_folder(folder)


def test_models_of_many_kinds_write_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    for name in (
        *("Qwen3ForCausalLM", "Gemma3ForConditionalGeneration", "GPT2LMHeadModel", "ChatGLMModel"),
        *("MistralForCausalLM", "GptOssForCausalLM", "SmolLM3ForCausalLM", "Olmo3ForCausalLM"),
    ):
        quantized = {"quantization_config": {"quant_method": "compressed-tensors"}}
        (folder / "config.json").write_text(json.dumps({"architectures": [name]} | quantized))
        check_engine(config_for(folder))


def test_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", without="tokenizer.json")
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"tokenizer.json' is .*; download it again"):
        checks.check_model_folder(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architectures": None}, "names no `architectures`"),
        ({"architectures": [3]}, "names no `architectures`"),
        ({"architectures": ["MadeUpForCausalLM"]}, "is a MadeUpForCausalLM, and neither vLLM"),
        ({"architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM, .* that writes text"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "that writes text"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized by 'bitsandbytes'"),
        ({"quantization_config": "4bit"}, "quantized by '4bit'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is '0', but a number above 0"),
        ({"text_config": {"vocab_size": "many"}}, "vocab_size is 'many'"),
        ({"hidden_size": 64}, r"embed_tokens.weight has 8 columns, a number that config"),
        ({"num_attention_heads": 3}, "hidden_size 8 is not a multiple of num_attention_heads 3"),
        (
            {"num_attention_heads": 4, "num_key_value_heads": 3},
            "num_attention_heads 4 is not a multiple of num_key_value_heads 3",
        ),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', but an object is needed"),
        ({"rope_scaling": {"type": "yarn"}}, "of type 'yarn' has the factor None, not a number"),
        ({"rope_parameters": {"a": {"rope_type": "linear", "factor": 0}}}, "has the factor 0, not"),
        ({"rope_scaling": {"type": "yran", "factor": 2}}, "a rope of type 'yran', which neither"),
        ({"rope_parameters": {"a": {"rope_type": 3}}}, "a rope of type '3', which neither"),
        ({"rope_scaling": {"type": ["yarn"]}}, r"a rope of type '\['yarn'\]', which neither"),
        ({"torch_dtype": "bfloat17"}, "torch_dtype is 'bfloat17', which torch does not have"),
        ({"dtype": "fp16"}, "dtype is 'fp16', which torch does not have"),
    ],
)
def test_config_that_cannot_be_meant_is_named(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    folder = make_folder(tmp_path / "m")
    header = (
        b'{"model.embed_tokens.weight": {"dtype": "U8", "shape": [1, 8], "data_offsets": [0, 8]}}'
    )
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"12345678"
    )
    (folder / "config.json").write_text(json.dumps(KIND | {"hidden_size": 8} | settings))
    with pytest.raises(ConfigError, match=message):
        check_engine(config_for(folder))
    (folder / "config.json").write_text(json.dumps(KIND | {"hidden_size": 8}))
    check_engine(config_for(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_attention_heads": 3, "head_dim": 4},
        {"num_attention_heads": 3, "qk_rope_head_dim": 4},
        {"num_attention_heads": 4, "num_key_value_heads": [1, 2]},
        {"rope_scaling": {"type": "su", "long_factor": [1.0]}},
        {"rope_scaling": {"type": "mrope", "mrope_section": [1]}, "torch_dtype": "torch.bfloat16"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "dtype": "float32"},
        {"rope_scaling": {"rope_type": "longrope"}, "dtype": {"": "float32"}, "torch_dtype": None},
        {"rope_parameters": {"rope_type": "llama3", "factor": 32.0}},
        {"rope_scaling": None, "num_key_value_heads": None},
    ],
)
def test_unusual_attention_is_no_fault(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(KIND | {"hidden_size": 8} | settings))
    checks.check_model_folder(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kv_cache_gib": 1e6}, r"`kv_cache_gib` is 1e\+06, but this machine has \d+ GiB"),
        ({"tensor_parallel_size": 100_000}, r"but this machine (has \d+ cores|shows)"),
    ],
)
def test_more_than_the_machine_has_is_named(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(MachineError, match=message):
        check_engine(config_for(make_folder(tmp_path / "m"), device="cpu", **fields))


def test_complete_model_folder_passes(tmp_path: Path) -> None:
    check_engine(config_for(make_folder(tmp_path / "m")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"", "no safetensors header"),
        ("model.safetensors", WEIGHTS[:-1], "71 bytes, but their header says 72"),
        ("model.safetensors", WEIGHTS + b"x", "73 bytes, but their header says 72"),
        ("model.safetensors", WEIGHTS[:20], "no safetensors header"),
        ("model.safetensors", b"\xff" * 8 + b"{}", "no safetensors header"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("config.json", b'{"a": ', "config.json' is not JSON"),
        ("tokenizer.json", b"[1, 2]", "holds a JSON list"),
        ("tokenizer_config.json", b"\xe9", "is not JSON"),
        ("generation_config.json", b"3", "holds a JSON int"),
        ("config.json", b'{"max_position_embeddings": "many"}', "is 'many'"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "no safetensors header"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}',
            r"lacks weight files that .* names \('model-2.safetensors'\)",
        ),
        ("model.safetensors.index.json", b'{"weight_map": ["a"]}', "has no `weight_map`"),
    ],
)
def test_damaged_model_folder_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        check_engine(config_for(folder))


@pytest.mark.parametrize(
    ("settings", "fields", "message"),
    [
        ({"auto_map": {"AutoModel": "m.M"}, "model_type": "own"}, {}, "needs code of its own"),
        ({"auto_map": {"AutoModel": "m.M"}}, {}, "needs code of its own"),
        ({"max_position_embeddings": 512}, {"max_context": 513}, "has 512 positions; lower"),
        ({"text_config": {"max_position_embeddings": 64}}, {"max_context": 65}, "64 positions"),
        ({}, {"revision": "main"}, "`revision` is 'main', but model .* is a folder"),
    ],
)
def test_settings_that_the_model_cannot_meet_are_named(
    settings: dict[str, Any], fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(KIND | settings), "utf-8")
    with pytest.raises(ConfigError, match=message):
        check_engine(config_for(folder, **fields))


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"auto_map": {"AutoModel": "m.M"}, "model_type": "phi3"}, {}),
        ({"max_position_embeddings": 512}, {"max_context": 512}),
        ({"max_position_embeddings": 512, "rope_scaling": {"factor": 2}}, {"max_context": 1024}),
    ],
)
def test_settings_that_the_model_meets_pass(
    settings: dict[str, Any], fields: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(KIND | settings), "utf-8")
    check_engine(config_for(folder, **fields))


def test_adapter_needs_whole_safetensors(tmp_path: Path) -> None:
    """Pickled weights (`adapter_model.bin`) are never loaded, so they do not count."""
    folder, adapter = make_folder(tmp_path / "m"), tmp_path / "a"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"has no adapter_model\.safetensors"):
        check_engine(config_for(folder, adapter=adapter))
    for settings, said in (
        ({}, "rank None, but a LoRA adapter"),
        ({"peft_type": "IA3", "r": 8}, "peft_type 'IA3'"),
        ({"r": 8, "use_dora": True}, "`use_dora`, which vLLM cannot add"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "`modules_to_save`, which"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match=said):
            check_engine(config_for(folder, adapter=adapter))
    (adapter / "adapter_config.json").write_text('{"r": 8, "use_dora": false}')
    (adapter / "adapter_model.safetensors").write_bytes(WEIGHTS[:-2])
    with pytest.raises(ConfigError, match="header says"):
        check_engine(config_for(folder, adapter=adapter))


@pytest.mark.parametrize("name", ["/no/such/folder", "models/nothing-here", "./nothing/here"])
def test_missing_model_folder_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist; correct `model`"):
        check_engine(config_for(name))


def test_unknown_hub_name_says_how_to_download() -> None:
    with pytest.raises(ConfigError, match="run: hf download nobody/nothing --revision main"):
        check_engine(config_for("nobody/nothing", revision="main"))


def test_missing_chat_template_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", template=False)
    with pytest.raises(ConfigError, match=r"has no chat template.*use an instruct checkpoint"):
        check_engine(config_for(folder))
    template = tmp_path / "chat.jinja"
    with pytest.raises(ConfigError, match=r"chat template .* does not exist"):
        check_engine(config_for(folder, chat_template=template))
    template.write_text(CHAT_TEMPLATE, "utf-8")
    check_engine(config_for(folder, chat_template=template))


def test_missing_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no adapter_config.json"):
        check_engine(config_for(make_folder(tmp_path / "m"), adapter=tmp_path / "none"))


def test_cuda_without_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "m")
    monkeypatch.setattr(checks, "count_gpus", lambda: 0)
    with pytest.raises(MachineError, match="shows no NVIDIA GPU; use `device: cpu`"):
        check_engine(config_for(folder, device="cuda"))
    monkeypatch.setattr(checks, "count_gpus", lambda: 1)
    monkeypatch.setattr(checks, "vllm_build", lambda: "cpu")
    with pytest.raises(MachineError, match="run `make setup-cuda`"):
        check_engine(config_for(folder, device="cuda"))
    monkeypatch.setattr(checks, "vllm_build", lambda: "cuda")
    with pytest.raises(MachineError, match=r"`tensor_parallel_size` is 2 .* 1 NVIDIA GPU"):
        check_engine(config_for(folder, tensor_parallel_size=2))
    with pytest.raises(MachineError, match="vLLM for CUDA"):
        check_engine(config_for(folder, device="cpu"))
    monkeypatch.setattr(checks, "count_gpus", lambda: 0)
    with pytest.raises(MachineError, match=r"vLLM for CUDA and this machine shows no NVIDIA GPU"):
        check_engine(config_for(folder, device="auto"))
    monkeypatch.setattr(checks, "vllm_build", lambda: None)
    with pytest.raises(MachineError, match="vLLM is not installed"):
        check_engine(config_for(folder))


def test_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    config = OpenAIConfig(
        type="openai", base_url="http://127.0.0.1:9/v1", model="m", api_key_env="SOME_KEY"
    )
    with pytest.raises(ConfigError, match="environment variable SOME_KEY is not set"):
        check_engine(config)


async def test_unreachable_endpoint_is_one_line() -> None:
    config = OpenAIConfig(type="openai", base_url="http://127.0.0.1:9/v1", model="m", max_retries=0)
    with pytest.raises(UserError, match=r"cannot be used .*start the server"):
        async with open_engine(config):
            pass


@recipe_factory
class MarkedEngine:
    """Counts how often a check calls it."""

    calls: ClassVar[int] = 0

    def __init__(self, word: str = "") -> None:
        MarkedEngine.calls += 1


class SubEngine(MarkedEngine):
    """Inherits, and is not marked itself."""


def test_check_calls_no_factory() -> None:
    script = f"{__name__}:MarkedEngine"
    check_engine(ScriptedConfig(type="scripted", script=script, args={"word": "x"}))
    with pytest.raises(ConfigError, match=r"does not take these args .*correct `args`"):
        check_engine(ScriptedConfig(type="scripted", script=script, args={"words": "x"}))
    assert MarkedEngine.calls == 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("no_such_module:f", "cannot be loaded"),
        ("json:no_such", "cannot be loaded"),
        ("builtins:dict", "is not marked as one that recipes may call"),
        ("os:system", "is not marked"),
        ("unittest.mock:call", "is not marked"),
        (f"{__name__}:SubEngine", "is not marked"),
        ("..:f", "cannot be loaded"),
    ],
)
def test_wrong_script_is_named(script: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_engine(ScriptedConfig(type="scripted", script=script))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    one, other = make_folder(tmp_path / "one"), make_folder(tmp_path / "two")
    (other / "README.md").write_text("a card", "utf-8")
    same = model_fingerprint(one, dtype="float32")
    assert model_fingerprint(other, dtype="float32") == same
    assert model_fingerprint(one, dtype="bfloat16") != same
    assert model_fingerprint(one, dtype="float32", chat_template_args={"x": 1}) != same
    (other / "model.safetensors").write_text("other weights", "utf-8")
    assert model_fingerprint(other, dtype="float32") != same


def test_importing_engines_stays_light() -> None:
    code = (
        "import sys, pipeline.engines, pipeline.engines.checks, pipeline.engines.vllm.settings;"
        "print([m for m in ('torch', 'vllm', 'openai', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert found.stdout.strip() == "[]"
