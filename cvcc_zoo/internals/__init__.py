"""The places where this package relies on what Lightning, torch and jsonargparse do not promise.

Each function says why it is needed, and `tests/test_internals.py` fails if a new version of the library breaks it.
"""
