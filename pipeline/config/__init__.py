"""The settings of a run: pydantic models of the recipe's sections, and how YAML becomes them."""

from pipeline.config.recipe import RunConfig, load_config

__all__ = ["RunConfig", "load_config"]
