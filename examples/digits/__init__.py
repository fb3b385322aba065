"""A small Vision Transformer for handwritten digits, trained, exported and compared on every runtime."""
