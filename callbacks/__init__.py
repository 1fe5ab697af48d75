"""Lightning callbacks, one a file. They are named in YAML; nothing in dermsynth imports them."""
