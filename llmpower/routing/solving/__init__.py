"""The exact optimum over cells, and its proof; it knows costs as arrays alone."""
