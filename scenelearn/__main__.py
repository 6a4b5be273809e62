"""`python -m scenelearn` runs the command `scenelearn`."""

import sys

from scenelearn.cli import main

sys.exit(main())
