"""Command lines and YAML files become objects here, and only here."""
