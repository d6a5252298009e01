"""A report that compares runs on one HTML page."""

from cvcc_zoo.report.reports import RunReport, read_run, unfinished

__all__ = ["RunReport", "read_run", "unfinished"]
