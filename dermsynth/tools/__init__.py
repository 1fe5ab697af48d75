"""Commands that are not training: one typed function each."""
