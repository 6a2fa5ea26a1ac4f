"""COCO 2017 and other folders with annotations in COCO's format."""
