"""Registered models at work: videos forecast by a command, requests answered by a server."""
