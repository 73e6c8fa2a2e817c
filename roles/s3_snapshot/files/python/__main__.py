"""Entry of the zipapp."""

import sys

from slipway_snapshot.cli import main

sys.exit(main(sys.argv[1:]))
