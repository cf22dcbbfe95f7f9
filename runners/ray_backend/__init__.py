"""Ray, behind one seam: nothing else in the project imports it (import-linter holds that).

Ray reads its settings when it is imported, so they are made here, before any module of this package is.
"""

import os

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Tune starts all that it is given at once, which is what there is room for, and writes of it nothing.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
