"""The model registry: registered models, the gate, and promotion."""
