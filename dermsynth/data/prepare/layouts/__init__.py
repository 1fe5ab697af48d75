"""ISIC downloads as people have them on disk: one small module a family of layouts.

Start with `recognise.py`: the table of layouts, and how a folder's layout is found. A reader, `isic2020.py` for one,
knows the names of its files and the meaning of their columns. It reads no pixels: it gives, for each image, where it
lies and what the manifest will say of it (`download.py`). `tables.py`, `files.py` and `labels.py` are what readers
share: rows of a CSV, images of a folder, words for a diagnosis.

To add a layout, write a reader and give its `Layout` a line in `recognise.py`.

Image names from a CSV are only looked up in the listing of the source folder, and a symbolic link that leads out of it
is refused before anything is read, so no row and no file can point outside.
"""
