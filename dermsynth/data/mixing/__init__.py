"""How many real and generated images of each class an epoch shows, and in which order."""
