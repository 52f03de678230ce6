"""Labels of other tools: each format reads and writes masks of a clip store's frames; `table.py` lists them."""
