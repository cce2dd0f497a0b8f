"""Spaces that are a folder of text: the language of `LANGUAGE.md`, and all that follows from a space file."""
