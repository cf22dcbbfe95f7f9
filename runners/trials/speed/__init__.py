"""Speed of trials: measured, forecast, and checked before a run."""
