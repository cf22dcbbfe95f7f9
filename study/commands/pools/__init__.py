"""The commands of ``python -m study data``, one file each."""
