"""Thin HTTP doors: parse, call the domain, shape the answer."""
