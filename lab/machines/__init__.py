"""Backends of the local cloud: real hosts, networks, firewalls and volumes, or a stub for tests."""
