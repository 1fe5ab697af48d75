"""Stable Diffusion: parts, the DreamBooth objective, sampling and their LightningModules."""
