"""Integrations with other libraries; each is a module that is imported only when it is needed."""
