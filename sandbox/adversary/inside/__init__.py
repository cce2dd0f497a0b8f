"""Candidates that mean harm. Loaded inside sandboxes only, as a plugin; nothing on the host imports them.

Inside a sandbox this package is called `hostile`, so its modules import each other relatively.
"""
