"""Readers and writers of what labelling tools make, besides COCO and VOC."""
