"""Ray, behind one seam: nothing else in the project imports it (import-linter holds that).

Ray reads its settings when it is imported, so they are made here, before any module of this package is.
"""

import os

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Tune's: no tables of its own, no folder and no log files for each trial.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
