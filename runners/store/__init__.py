"""Where bytes lie: locations, local copies, the machine's cache, atomic files and locks."""
