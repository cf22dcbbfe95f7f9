"""``python -m study``; a signal waits until `main` takes it."""

import sys

from runners.host.faults import shield

shield()

from study.cli import main  # noqa: E402 - signals wait from the first line on

sys.exit(main())
