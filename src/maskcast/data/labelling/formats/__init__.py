"""Label formats of other tools: each reads and writes masks of frames in a clip store; `table.py` lists them."""
