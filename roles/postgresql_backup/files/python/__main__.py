"""Entry point of the zipapp /usr/local/lib/slipway/postgresql-backup."""

import sys

from postgresql_backup.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
