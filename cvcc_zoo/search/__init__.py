"""Hyperparameter search: spaces of values, methods that choose the next trial, and the record of trials."""
