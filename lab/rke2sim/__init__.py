"""A simulated RKE2 release, packaged like the official tarball. See README.md."""
