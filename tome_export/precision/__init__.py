"""Models in less than float32, made beside the float32 ones and held to them.

makers.py      the table of precisions: who makes them, artifacts or engines
int8.py        ONNX, quantised in a child process (int8_child.py)
fp16.py        ONNX in float16, likewise (fp16_child.py); half.py says which part of the graph, and changes it
made.py        what a maker hands back; the child process
layers.py      the linear layers of an exported ONNX graph; the merging metric split from them, back to float
keep.py        which blocks the user wants to stay in float
pictures.py    the user's pictures: some to calibrate on, some to judge on; synthetic samples without any
gate.py        does the reduced model predict what the float one predicts?
sensitivity.py which blocks to keep in float where it does not
result.py      what comes out, as the manifest stores it
"""
