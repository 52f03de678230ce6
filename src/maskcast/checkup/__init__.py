"""What is there, and what is missing: of this machine, the project and its servers (`maskcast doctor`)."""
