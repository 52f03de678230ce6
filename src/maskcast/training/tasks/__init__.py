"""What is trained: a module per kind of model."""
