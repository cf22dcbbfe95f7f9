"""What each kind of tower costs, one file a family: multiply-accumulates and parameters in closed form."""
