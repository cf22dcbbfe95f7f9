"""Reading a pool's pairs in the order in which a trial sees them."""
