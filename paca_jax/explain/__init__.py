"""Pictures of clusters: what each of them gathers, drawn over the image."""

from paca_jax.explain.heat import overlay
from paca_jax.explain.png import to_png
from paca_jax.explain.selection import cluster_strengths, strongest_clusters
from paca_jax.explain.sheet import cluster_sheet

__all__ = ["cluster_sheet", "cluster_strengths", "overlay", "strongest_clusters", "to_png"]
