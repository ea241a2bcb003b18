"""What the report of an image run has beside the page of any run: lines between its networks, where measured."""

from sbjax.experiments.connectivity.report import report

__all__ = ["report"]
