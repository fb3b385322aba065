"""A bundle as a model repository of the Triton Inference Server.

serving.py: what is asked; config.py: `config.pbtxt` of the four models; pbtxt.py: its syntax; repository.py:
the folder; files/: the Python of two of the models, copied as it is and never imported here.
"""
