"""A simulated RKE2 release, packaged as the official tarball. See README.md beside this file."""
