"""Reports for people: pages, charts, tables and pictures."""
