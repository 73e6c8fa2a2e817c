"""The Hetzner Cloud API v1 on this machine: `app.create_app` is the door, `README.md` lists what is real."""
