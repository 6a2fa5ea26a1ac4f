"""Pictures of clusters, segmentations and detections, drawn over the image, and what clusters do, in numbers."""

from paca_jax.explain.cluster_sheets import cluster_sheet, sheet
from paca_jax.explain.colors import mask_png, palette
from paca_jax.explain.columns import LARGEST
from paca_jax.explain.detections import Found, detection_overlay, detection_sheet
from paca_jax.explain.heat import overlay
from paca_jax.explain.inspection.block_effects import BlockEffects, block_effects
from paca_jax.explain.inspection.cluster_effects import ClusterEffects, RemovalCurves, cluster_effects, removal_curves
from paca_jax.explain.inspection.effect_report import effect_report
from paca_jax.explain.inspection.effect_tables import effect_tables
from paca_jax.explain.inspection.overlap import SegmentOverlap, overlap_table, segment_overlap
from paca_jax.explain.inspection.patch_sources import compose_maps, patch_sources, roll_out_maps
from paca_jax.explain.inspection.stability import AUGMENTATIONS, ClusterMatch, Stability, cluster_stability, match_clusters
from paca_jax.explain.marking import Marked
from paca_jax.explain.page.building import Explorer, explorer
from paca_jax.explain.png import to_png
from paca_jax.explain.segments import Segments, segment_overlay, segment_sheet
from paca_jax.explain.selection import cluster_strengths, strongest_clusters

__all__ = [
    "AUGMENTATIONS",
    "LARGEST",
    "BlockEffects",
    "ClusterEffects",
    "ClusterMatch",
    "Explorer",
    "Found",
    "Marked",
    "RemovalCurves",
    "SegmentOverlap",
    "Segments",
    "Stability",
    "block_effects",
    "cluster_effects",
    "cluster_sheet",
    "cluster_stability",
    "cluster_strengths",
    "compose_maps",
    "detection_overlay",
    "detection_sheet",
    "effect_report",
    "effect_tables",
    "explorer",
    "mask_png",
    "match_clusters",
    "overlap_table",
    "overlay",
    "palette",
    "patch_sources",
    "removal_curves",
    "roll_out_maps",
    "segment_overlap",
    "segment_overlay",
    "segment_sheet",
    "sheet",
    "strongest_clusters",
    "to_png",
]
