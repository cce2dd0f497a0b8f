"""Hostile candidates, and the trial that runs them against a sandbox and looks at what is left."""
