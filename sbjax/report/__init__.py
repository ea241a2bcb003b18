"""Results of paired arms -> statistics, tables, figures, one HTML file."""

from sbjax.report.page import build_report

__all__ = ["build_report"]
