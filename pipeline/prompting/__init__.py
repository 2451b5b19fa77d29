"""Prompts for models: Jinja templates, the defense against text that imitates them, and checks
of the options that they show.
"""
