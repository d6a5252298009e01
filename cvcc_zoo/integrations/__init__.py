"""Bridges to other libraries; each is imported by its own name, and only when it is wanted."""
