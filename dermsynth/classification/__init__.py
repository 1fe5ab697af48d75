"""The ViT classifier of skin lesions."""
