"""The stages of the pipeline: one module each, a params class and one public function."""
