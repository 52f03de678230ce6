"""Safe unpacking of users' archives."""
