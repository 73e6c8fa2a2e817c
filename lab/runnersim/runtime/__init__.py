"""The runtime of the simulated GitLab Runner. Python's standard library only: it runs on the lab's hosts."""
