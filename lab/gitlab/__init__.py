"""A simulation of GitLab for the lab: the half of its API that runners use, and a small pipeline engine."""
