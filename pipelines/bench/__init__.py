"""Measured beside plain loops."""
