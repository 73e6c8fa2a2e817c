"""What stands behind the local cloud's objects: real hosts, networks, firewalls and volumes, or a stub for tests."""
