"""The parts of an evaluation: which pictures, decoded by whom, answered by which models, counted how.

    dataset -> pool (worker processes) -> outcomes -> metrics -> report

`tome_export.evaluate` puts them together. `outcomes.collect` is what to use for answers picture by picture.
"""
