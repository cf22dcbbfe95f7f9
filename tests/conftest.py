"""What holds for all tests."""

from hypothesis import settings

# A busy machine must not fail a test: speed is measured by benchmarks alone.
settings.register_profile("no deadline", deadline=None, derandomize=True)
settings.load_profile("no deadline")
