"""A simulation of GitLab Runner for the lab: the official package's layout, commands and protocol. See README.md."""
