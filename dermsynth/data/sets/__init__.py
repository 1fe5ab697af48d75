"""Image sets: what metadata.csv says, and the pixels of its images."""
