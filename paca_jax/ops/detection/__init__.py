"""Anchors, boxes, matching, NMS, RoIAlign and masks."""
