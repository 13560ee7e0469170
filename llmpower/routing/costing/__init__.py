"""What every cell costs on every choice, and what a division of them comes to."""
