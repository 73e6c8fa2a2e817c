"""Snapshots of the platform's parts in one bucket: upload, verify, describe by a manifest, report their age."""

VERSION = "0.1.0"
"""Of the platform; written to each manifest."""
