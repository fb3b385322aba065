"""A bundle behind the Open Inference Protocol, on Ray Serve. Which file does what:

options.py     what is asked, checked            refusal.py   a request that gets an error, and its status
protocol.py    v2 over HTTP <-> arrays           grpc_messages.py   v2 over gRPC <-> arrays
pictures.py    bytes of picture files -> tensor  batching.py  several requests -> one run of the model
service.py     what can be asked of a bundle: the above together, without Ray and without HTTP
http.py        paths and methods -> service      replica.py   the one deployment
guard.py       what requests meet first, in the process that listens: limits, time, drain, retry
proxy.py       puts the guard into Ray's proxy   app.py, config_file.py   for a Ray cluster
local.py       Ray on this machine: start, wait, drain, clean up
"""
