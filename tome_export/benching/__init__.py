"""Measuring speed: what takes turns with what, and what is told of it; `tome_export.bench` uses it."""
