"""Backups and restores of PostgreSQL with pgBackRest, on the database host.

Runs with Python 3.11 and its standard library.
"""
