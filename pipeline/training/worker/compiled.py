"""Layers compiled in place, one by one: their code is the same, so it is compiled once."""

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: Any) -> None:
    """Compile at the first call, for any number of tokens; names and weights stay as they are."""
    for layer in _layers(model):
        layer.compile(dynamic=True)
    # With an adapter the first layer, whose input has no gradient, would be compiled apart.
    model.enable_input_require_grads()


def is_compiled(model: Any) -> bool:
    """Whether `compile_layers` was called; an adapter around the model makes no difference."""
    return any(layer._compiled_call_impl is not None for layer in _layers(model))


def _layers(model: Any) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
