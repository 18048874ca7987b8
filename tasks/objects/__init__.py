"""Boxes and masks of objects, for every task and for `score`: the files and the rules of COCO and VOC."""
