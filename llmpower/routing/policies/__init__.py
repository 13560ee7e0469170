"""A plan's prices for queries that nobody knew when it was made, and the file that keeps them."""
