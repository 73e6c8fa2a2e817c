"""The lab measured against its goals: `python -m lab.bench`."""
