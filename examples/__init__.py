"""Worked examples. Run them from a checkout: `python -m examples.digits`, `python -m examples.finetune`."""
