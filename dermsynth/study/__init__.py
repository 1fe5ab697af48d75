"""A whole study from one file: declared, planned as commands, run."""
