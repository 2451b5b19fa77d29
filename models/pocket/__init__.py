"""The pocket model and its world: a tiny Llama, the text it was trained on, and a ground truth.

world.py       tasks, prompts and responses: the grammar
principles.py  requests for critiques, revisions and comparisons; critiques
rationales.py  what a judge writes before its verdict
follow_ups.py  what a user says after a response
oracle.py      reads any prompt and response without knowing how they were made
corpus.py      training conversations: samples, chains, comparisons
labeling.py    further ones: few-shot comparisons, rationales, ratings, follow-ups
mixture.py     the mix of all of them, drawn by seed
build.py       the recipe: corpus, tokenizer, training, export
"""
