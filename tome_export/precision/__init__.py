"""Artifacts in less than float32, made beside the float32 ones and held to them.

keep.py        which blocks the user wants to stay in float
pictures.py    the user's pictures: some to calibrate on, some to judge on; synthetic samples without any
int8.py        starts the quantisation in a child process (int8_child.py)
layers.py      the linear layers of an exported ONNX graph; the merging metric split from them, back to float
gate.py        does the reduced model predict what the float one predicts?
sensitivity.py which blocks to keep in float where it does not
result.py      what comes out, as the manifest stores it
"""
