"""How good a fit is: errors on what it has not seen, the choice of the form, and what is said of it."""
