"""One training run: its command line, its folder, its checkpoints, and how it stops and resumes."""
