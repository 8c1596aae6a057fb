"""Ranks of a group as processes of a test."""

from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp


def run_ranks(rank_main: Callable[..., None], n_ranks: int, *arguments: Any) -> None:
    """Runs ``rank_main(rank, *arguments)`` in processes of their own, and waits for them.

    They are forked, so that torch is imported once; with a GPU, torch's gradients need new
    processes.
    """
    method = "spawn" if torch.cuda.is_available() else "fork"
    mp.start_processes(rank_main, args=arguments, nprocs=n_ranks, start_method=method)
