"""The pocket model and its world: a tiny Llama, the text it was trained on, and a ground truth.

world.py       tasks, prompts and responses: the grammar
principles.py  requests for critiques, revisions and comparisons; critiques
oracle.py      reads any prompt and response without knowing how they were made
corpus.py      training conversations, drawn from the grammar
build.py       the recipe: corpus, tokenizer, training, export
"""
