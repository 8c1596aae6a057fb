"""The published series: its steps, their scores, and ladders combined over seeds.

May import ``study``, ``experiment``, ``report`` and rooms below. Ladders on Ray run in
``distributed.ladder_trainer``; tables and plots are drawn in ``report``; the scores of steps
are computed in ``evaluate.step_scores``.
"""
