"""Pictures of clusters, segmentations and detections, drawn over the image."""

from paca_jax.explain.cluster_sheets import cluster_sheet, sheet
from paca_jax.explain.colors import mask_png, palette
from paca_jax.explain.columns import LARGEST
from paca_jax.explain.detections import Found, detection_overlay, detection_sheet
from paca_jax.explain.heat import overlay
from paca_jax.explain.marking import Marked
from paca_jax.explain.png import to_png
from paca_jax.explain.segments import Segments, segment_overlay, segment_sheet
from paca_jax.explain.selection import cluster_strengths, strongest_clusters

__all__ = [
    "LARGEST",
    "Found",
    "Marked",
    "Segments",
    "cluster_sheet",
    "cluster_strengths",
    "detection_overlay",
    "detection_sheet",
    "mask_png",
    "overlay",
    "palette",
    "segment_overlay",
    "segment_sheet",
    "sheet",
    "strongest_clusters",
    "to_png",
]
