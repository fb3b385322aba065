"""Does an artifact compute what it should, down to each merge decision? Nothing here needs the Python model.

samples.py     inputs that are repeatable by name; photographs from a folder
limits.py      what each precision may differ by, and why
figures.py     how far two sets of logits are apart
decisions.py   which merges agree, which hang on rounding, which are wrong
stages.py      each part of each block by itself, so that an error is named where it arises
following.py   a model that merges as another one did: in ONNX here, in Paddle in `dygraph.py`
judge.py       all of it for one runtime;  verify.py: for a finished bundle
result.py      what comes out, as the manifest stores it
html.py        what comes out, as a page;  report/: its sections
"""
