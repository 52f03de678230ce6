"""Raw layouts of images with boxes, one module each."""
