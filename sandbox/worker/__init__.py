"""The only code that runs inside a sandbox: it reads one job and leaves one report."""
