"""Boxes, and boxes with masks: COCO and VOC, read and scored as the official tools do."""
