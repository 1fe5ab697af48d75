"""Bases that come with the package: small Stable Diffusion pipelines with their model cards, found by name."""
