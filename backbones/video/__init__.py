"""Trunks for clips: frames in, maps over time out."""
