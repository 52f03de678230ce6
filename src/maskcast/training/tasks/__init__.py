"""The training tasks: a module per kind of model."""
