"""What a comparison says, in words and in a figure."""
