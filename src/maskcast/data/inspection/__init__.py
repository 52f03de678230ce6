"""Looks at a folder of somebody's data: which layout it has, what its masks hold, how long its sequences are."""
