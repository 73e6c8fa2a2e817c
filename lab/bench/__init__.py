"""Benchmarks of the lab and the platform against their goals: `python -m lab.bench`."""
