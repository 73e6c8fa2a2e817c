"""What runs on the hosts: `bin/rke2` of the simulated release. Standard library and PyYAML only, Python 3.13.

On a host this package is called `rke2sim`; hence only relative imports in here.
"""
