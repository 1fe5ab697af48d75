"""Drawn lesions: patients, tables and pixels in the ISIC 2020 layout."""
