"""Result rows as cells and curves, with the noise of their runs."""
