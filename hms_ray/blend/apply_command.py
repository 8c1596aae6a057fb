"""The submission of a fitted blend: `hms-ray blend --apply`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hms_ray.blend.apply import apply_blend
from hms_ray.errors import ConfigError
from hms_ray.predict.command import SUBMISSION, Place, lines_to_print
from hms_ray.predict.files import require_place, write_submission
from hms_ray.report.progress import bar
from hms_ray.text import counted


def apply_to_file(
    file: Path, place: Place, out: Path | None = None, predictions: Sequence[str] = ()
) -> str:
    """Writes the submission of a blend.

    Args:
        file: ``blend.json``.
        place: data, models and device.
        out: ``.csv`` or ``.parquet``; ``submission.csv`` where absent.
        predictions: ``NAME=FILE`` each, predictions of a member brought from elsewhere.

    Returns:
        Lines to print, at most 80 columns wide but for the last line.

    Raises:
        ConfigError: for a file of another ending, or predictions that are not named.
        HmsRayError: as of ``apply_blend``.
    """
    out = out or SUBMISSION
    require_place(out)
    applied = apply_blend(
        file,
        place.data_dir,
        results=place.results,
        given=named_files(predictions),
        pack_dir=place.pack_dir,
        device=place.device,
        threads=place.threads,
        bars=bar,
    )
    write_submission(out, applied.submission, applied.eeg_ids)
    n_rows = counted(len(applied.eeg_ids), "row")
    return lines_to_print(applied.notes, f"{out}: {n_rows}, blend of {file}")


def named_files(texts: Sequence[str]) -> Mapping[str, Path]:
    """Name -> file, of texts ``NAME=FILE``.

    Raises:
        ConfigError: where one has no name or no file, or a name comes twice.
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.rpartition("=")
        if not name or not file:
            raise ConfigError("predictions must be given as NAME=FILE", got=text)
        if name in files:
            raise ConfigError("a member's predictions must be given once", got=name)
        files[name] = Path(file)
    return files
