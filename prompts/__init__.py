"""Prompt templates: text only. `base/` holds the defaults; a folder named like a space overrides them."""
