"""The training subprocess, the only part of the package that imports torch, transformers or trl."""
