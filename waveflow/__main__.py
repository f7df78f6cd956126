"""``python -m waveflow`` is the ``waveflow`` command."""

import sys

from waveflow.cli import main

sys.exit(main())
