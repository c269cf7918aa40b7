"""How the repository becomes a package: see staging.py. Nothing here is installed."""
