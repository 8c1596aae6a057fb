"""``hms-ray pack``: packs every source that an experiment uses and prints a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import rows_of
from hms_ray.config.loading import load_space
from hms_ray.config.space import Space
from hms_ray.dataset.label_rows import label_windows
from hms_ray.dataset.packs import pack_parts, part_of
from hms_ray.dataset.sources import pack_source, source_key, sources_for
from hms_ray.display.live import bar
from hms_ray.errors import ConfigError
from hms_ray.pack.build import build_pack, default_pack_dir
from hms_ray.pack.layout import read_pack_manifest
from hms_ray.pack.parallel import Mapper
from hms_ray.pack.sources import PackSource
from hms_ray.pack.store import Pack
from hms_ray.pack.verify import verify_pack
from hms_ray.pack.windows import Recordings, Windows
from hms_ray.text import counted


def space_to_pack(file: Path | None, settings: Sequence[str]) -> Space:
    """The space whose sources are packed; the default space without a file.

    Raises:
        ConfigError: if the file or a setting is invalid, or there are settings but no file.
    """
    if file is not None:
        return load_space(file, settings)
    if settings:
        raise ConfigError(
            "--set needs an experiment",
            got=settings[0],
            fix="Name the experiment with --space FILE.",
        )
    return Space()


def pack_folder(
    folder: Path,
    space: Space,
    pack_dir: Path | None = None,
    *,
    workers: int | None = None,
    mapper: Mapper | None = None,
    rebuild: bool = False,
    verify: bool = False,
) -> list[Pack]:
    """Packs every source that a space uses and prints a summary of each pack.

    Args:
        folder: competition folder.
        space: defines the sources, and the rows whose windows are packed.
        pack_dir: default: ``packed`` in the competition folder.
        workers: shards made at once on this machine.
        mapper: makes the shards elsewhere.
        rebuild: make packs again even if they exist.
        verify: compare contents with checksums.

    Raises:
        ConfigError: if there is less than one worker.
        DataError: see ``build_pack``.
        PackError: see ``build_pack`` and ``verify_pack``.
    """
    if workers is not None and workers < 1:
        raise ConfigError("packing needs at least one worker", got=workers)
    packs = []
    for key, source, part in _to_pack(folder, space):
        with bar(f"packing {key}", source.kind) as progress:
            pack = build_pack(
                folder,
                pack_dir or default_pack_dir(folder),
                source,
                part,
                progress=progress,
                workers=workers,
                mapper=mapper,
                rebuild=rebuild,
            )
        if verify:
            verify_pack(pack.path)
        print(_summary(pack) + (", contents verified" if verify else ""))
        packs.append(pack)
    return packs


def _to_pack(
    folder: Path, space: Space
) -> Iterator[tuple[str, PackSource, Windows | Recordings | None]]:
    """``source_key``, form and part of every pack of a space."""
    data, sources = space.experiment.data, sources_for(space)
    if not data.holdout and all(source.recipe is None for source in sources):
        # All recordings, whatever the labels are.
        yield from ((source_key(*one), pack_source(*one), None) for one in sources[:1])
        return
    rows = rows_of(read_labels(folder), data)
    labels = label_windows(folder, rows, data.unit, sources)
    for forms, windows in pack_parts(sources, rows, labels):
        for key, form in forms.items():
            yield key, form, part_of(form, windows, only_rows=data.holdout > 0)


def _summary(pack: Pack) -> str:
    missing = read_pack_manifest(pack.path)["missing"]
    size = pack.values.nbytes / 2**20
    one = pack.kind.removesuffix("s")
    lines = [f"{pack.path}: {counted(len(pack.recordings), one)}, {size:,.1f} MiB of float16"]
    if missing["n_with_gaps"] or missing["n_unusable"]:
        gaps = f"{counted(missing['n_with_gaps'], one)} with gaps"
        lines.append(gaps + f", {missing['n_unusable']:,} without any signal")
    lines.append(f"fingerprint {pack.fingerprint}")
    return "\n".join(lines)
