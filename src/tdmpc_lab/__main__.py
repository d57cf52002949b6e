"""`python -m tdmpc_lab` is `tdmpc-lab`."""

import sys

from tdmpc_lab.cli.main import main

sys.exit(main())
