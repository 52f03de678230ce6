"""Objects: their tracks, trajectories and rendering."""
