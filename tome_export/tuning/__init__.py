"""Finding a schedule: what tokens cost, how much merging changes the answers, and the search between the two.

`tome_export.tune` uses it. `costs`: time by schedule; `measure` fills it in. `shapes`: lists of r that cost
what was asked. `pictures`, `score`: agreement with the unmerged model. `search`: the best shape; `goal`
turns it into a schedule. `hunt`: all of these, in order. `result`, `report`.
"""
