"""Sheets of pictures, what a model answers for them, and the clusters of every stage."""

from paca_jax.explain.cluster_sheets.sheets import cluster_sheet, sheet

__all__ = ["cluster_sheet", "sheet"]
