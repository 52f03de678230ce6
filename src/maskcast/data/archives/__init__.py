"""Archives of users, unpacked safely."""
