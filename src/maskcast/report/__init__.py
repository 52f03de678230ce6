"""What people read and look at: pages, charts, tables, pictures."""
