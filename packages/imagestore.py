#!/usr/bin/python3 -I
"""The command, with the libraries that came with it and no others."""

import sys

sys.path.insert(0, "/usr/lib/imagestore")

from imagestore.cli.main import main

main()
