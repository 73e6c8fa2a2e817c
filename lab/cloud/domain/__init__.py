"""Nouns and verbs of the cloud: pure state changes on a transaction, no HTTP and no SQL."""
