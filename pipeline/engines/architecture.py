"""What kind of model a folder holds, by config.json and the libraries' own lists.

In:  a model folder
Out: nothing, or one ConfigError that names what was found and what to do

The lists are read as text, since importing vLLM or transformers takes seconds. Where a list is not
found, nothing is refused.
"""

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from pipeline.config.paths import file_problem
from pipeline.errors import ConfigError

_WRITERS = (
    (
        "vllm",
        "model_executor/models/registry.py",
        ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS"),
    ),
    (
        "transformers",
        "models/auto/modeling_auto.py",
        ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
    ),
)
"""Package, file, and its lists of models that write text."""
_QUANTIZED = ("vllm", "model_executor/layers/quantization/__init__.py", ("QuantizationMethods",))

_STRETCHED = ("linear", "ntk", "yarn", "deepseek_yarn", "llama3")
"""Kinds of rope whose `factor` both vLLM and transformers read; models have further kinds."""
_ROPES = (
    ("vllm", "model_executor/layers/rotary_embedding/__init__.py"),
    ("vllm", "transformers_utils/config.py"),
    ("transformers", "modeling_rope_utils.py"),
)
"""Package and file of those who read the kind of a rope."""
_DTYPES = frozenset(
    [
        "auto",
        "bfloat16",
        "double",
        "float",
        "float16",
        "float32",
        "float64",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "half",
    ]
)


def check_generates(folder: Path) -> None:
    """Whether the model writes text, and in which numbers its weights are.

    Raises:
        ConfigError: vLLM cannot generate with it here.
    """
    settings = json_object(folder / "config.json")
    names = settings.get("architectures")
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise ConfigError(
            f"'{folder / 'config.json'}' names no `architectures`, so no engine knows what the "
            "weights are; download it again"
        )
    writers = [_listed(*each) for each in _WRITERS]
    if all(writers) and not any(name in each for name in names for each in writers):
        raise ConfigError(
            f"model folder '{folder}' is a {names[0][:80]}, and neither vLLM nor transformers has "
            "a model of that name here that writes text (code of its own is not run); use another "
            "model"
        )
    known, method = _listed(*_QUANTIZED), quantization(folder)
    if known and method and method not in known:
        raise ConfigError(
            f"model folder '{folder}' has weights that are quantized by '{method[:40]}', which "
            "vLLM does not have here; use the model's original weights"
        )


def settings_fault(settings: dict[str, Any]) -> str:
    """What vLLM would find only once the weights are loaded; empty where nothing is found."""
    heads, groups = settings.get("num_attention_heads"), settings.get("num_key_value_heads")
    size, own = settings.get("hidden_size"), any(v for k, v in settings.items() if "head_dim" in k)
    if type(heads) is int and type(size) is int and not own and size % heads:
        return f"hidden_size {size} is not a multiple of num_attention_heads {heads}"
    if type(heads) is int and type(groups) is int and groups and heads % groups:
        return f"num_attention_heads {heads} is not a multiple of num_key_value_heads {groups}"
    scaling = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    if not isinstance(scaling, dict):
        return f"rope_scaling is {str(scaling)[:40]!r}, but an object is needed"
    known = [_quoted(*place) for place in _ROPES]
    # Some have one for each kind of layer.
    for each in (scaling, *(v for v in scaling.values() if isinstance(v, dict))):
        kind, factor = each.get("rope_type", each.get("type")), each.get("factor")
        is_factor = isinstance(factor, int | float) and factor > 0
        if kind in _STRETCHED and not is_factor:
            return (
                f"a rope of type '{kind}' has the factor {str(factor)[:40]}, not a number above 0"
            )
        if kind is not None and all(known) and not any(str(kind) in each for each in known):
            return (
                f"a rope of type '{str(kind)[:40]}', which neither vLLM nor transformers has here"
            )
    for name in ("dtype", "torch_dtype"):
        value = settings.get(name)
        if isinstance(value, str) and value.removeprefix("torch.") not in _DTYPES:
            return f"{name} is '{value[:40]}', which torch does not have"
    return ""


def quantization(folder: Path) -> str:
    """How the weights are quantized, as config.json says; empty where they are not."""
    told = json_object(folder / "config.json").get("quantization_config")
    if not isinstance(told, dict):
        return str(told or "")
    return str(told.get("quant_method") or "an unnamed method")


def refuse_quantized(folder: Path) -> None:
    """Raises ConfigError for weights that no training can start from."""
    if method := quantization(folder):
        raise ConfigError(
            f"model folder '{folder}' has weights that are quantized ({method[:40]}), and a "
            "training starts from original ones; name the original model, or leave out `train`"
        )


def refuse_own_code(folder: Path) -> None:
    """Many folders name code that transformers has by now, so the kind of model decides."""
    settings = json_object(folder / "config.json")
    transformers = importlib.util.find_spec("transformers")
    if "auto_map" not in settings or transformers is None or transformers.origin is None:
        return
    kind = str(settings.get("model_type", "")).replace("-", "_")
    if not kind.isidentifier() or not (Path(transformers.origin).parent / "models" / kind).is_dir():
        raise ConfigError(
            f"model folder '{folder}' needs code of its own (`auto_map` in config.json, model_type "
            f"'{settings.get('model_type')}'), and such code is not run; use a model that "
            "transformers has"
        )


def json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises ConfigError when it holds none, or is no regular file."""
    if problem := file_problem(path):
        raise ConfigError(f"'{path}' {problem}; download it again")
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)[:120]
        raise ConfigError(f"'{path}' is not JSON ({reason}); download it again") from None
    if not isinstance(value, dict) and path.name != "vocab.json":
        raise ConfigError(
            f"'{path}' holds a JSON {type(value).__name__}, but an object is needed; download it "
            "again"
        )
    return value if isinstance(value, dict) else {}


def _listed(package: str, place: str, lists: tuple[str, ...]) -> frozenset[str]:
    """Every quoted word in these lists of a file of a package; none where one is missing."""
    words = [_quoted(package, place, name) for name in lists]
    return frozenset().union(*words) if all(words) else frozenset()


@functools.cache
def _quoted(package: str, place: str, name: str = "") -> frozenset[str]:
    """Every quoted word in a file of a package, or in the list of that name in it."""
    spec = importlib.util.find_spec(package)
    path = (
        Path(spec.origin).parent / place if spec is not None and spec.origin is not None else None
    )
    text = path.read_text("utf-8") if path is not None and path.is_file() else ""
    if name:
        block = re.search(rf"(?ms)^{name}\b.*?^[\])}}]", text)
        text = block[0] if block else ""
    return frozenset(re.findall(r"\"([\w-]+)\"", text))
