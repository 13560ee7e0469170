"""What a fit is once it is done: its numbers, models.json, and what it predicts."""
