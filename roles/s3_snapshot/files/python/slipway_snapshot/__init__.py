"""Snapshots of the platform's parts in one bucket: upload, verify, describe by a manifest, report their age."""
