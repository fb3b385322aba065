"""A load test of `tome-export serve`; `python -m benchmarks.serving BUNDLE`. Its tests are a short form of
it.

server.py: the command as a process, its memory    clients.py: who asks, and whether the answer is right
load.py: many of them, for a while                 hostile.py: those who ask wrongly, and what they must be
told drills.py: a killed replica, SIGTERM               measure.py: throughput in turns with the bundle in
this process report.py: the table"""
