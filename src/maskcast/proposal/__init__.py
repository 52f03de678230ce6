"""Proposes params for a user's data, with an estimate of the time (`maskcast init`)."""
