"""One form fitted to one target of one model's rows: weights, coefficients, and those without a cell."""
