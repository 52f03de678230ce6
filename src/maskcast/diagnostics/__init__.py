"""Checks of this machine, the project and its servers (`maskcast doctor`), and dry runs of pipelines."""
