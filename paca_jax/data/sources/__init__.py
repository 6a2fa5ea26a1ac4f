"""Data sets: TFDS, folders of images and masks, COCO annotations."""
