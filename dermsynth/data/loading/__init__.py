"""Image sets become batches: the LightningDataModules, their caches, transforms and captions."""
