"""Raw layouts, one module each; ``table.py`` lists them."""
