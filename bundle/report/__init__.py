"""The page beside a result: one HTML file to look at input and result with, and to read how it came about."""

from .page import report_path, write_report

__all__ = ["report_path", "write_report"]
