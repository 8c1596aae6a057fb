"""The published series: its steps, their scores, and ladders combined over seeds.

May import ``study``, ``experiment``, ``display`` and rooms below. Ladders on Ray run in
``distributed.ladder_trainer``; tables and plots are drawn in ``display``; the scores of steps
are computed in ``evaluate.step_scores``.
"""
