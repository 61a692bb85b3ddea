"""A campaign of kills: commands of the pipeline end at random moments, run again, and must leave the same bytes.

    python -m tests.campaign --kills 200 --seed 1

One chain is a fresh workspace, one command and a few kills in a row. After the last kill, the command is given once
more and may finish; nobody mends anything in between. A chain holds if that command succeeds, and all outputs, DVC's
cache and MLflow's record are what an undisturbed run has.
"""
