"""dermsynth: do synthetic images help a skin-lesion classifier, by how much, and is it safe to use them?"""

__version__ = "0.1.0"
