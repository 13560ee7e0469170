"""What is given: queries in cells, the choices they have, what a joule counts, how good a model is, and limits."""
