"""Lightning callbacks, one per file. They are named in YAML; nothing in dermsynth imports them."""
