"""What several spans at once used: what each asks of the device, what that costs there, and so its share."""
