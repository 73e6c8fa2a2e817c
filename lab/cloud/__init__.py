"""The Hetzner Cloud API v1 on this machine: `app.create_app`; README.md lists the implemented endpoints."""
