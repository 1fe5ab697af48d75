"""Image sets: reading, splitting, mixing and loading them."""
