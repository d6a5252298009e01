"""Trained models as files that run without this package."""
