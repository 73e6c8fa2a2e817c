"""The runtime on the hosts: `bin/rke2` of the simulated release. Standard library and PyYAML only, Python 3.13.

On a host this package is named `rke2sim`, so imports in it are relative.
"""
