"""Results of paired arms -> statistics, tables, figures, one HTML file."""

from sbjax.report.html import build_report

__all__ = ["build_report"]
