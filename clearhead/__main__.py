"""`python -m clearhead` is the `clearhead` command."""

import sys

from clearhead.cli import main

sys.exit(main())
