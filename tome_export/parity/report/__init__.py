"""The sections of the HTML report, one file each; `tome_export.parity.html` puts them together.

markup.py       elements with everything escaped;  numbers.py: figures as text;  style.py: the CSS
words.py        names, usual causes, the reasons for the limits, the glossary
verdict.py      the sentence that matters, what was compared with what, and what is wrong
schedule.py     tokens and multiply-adds per block, drawn
agreement.py    decisions, noise and errors per block: panels.py draws them, this adds the table
groups.py       what merged, on a picture
figures.py      logits, limits, inputs
environment.py  versions, files, and the command that does it again
"""
