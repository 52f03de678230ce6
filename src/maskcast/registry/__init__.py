"""The model registry: what is registered, the gate before it, and how people promote it."""
