"""One self-contained HTML page about a manifest: what went in, what was dropped and why, the
distributions, and a gallery of rows with their media.

The page needs no server and no network: styles, script and pictures lie inside it, and its
Content-Security-Policy lets nothing else in. For whoever asks "why was this clip dropped, what
do the scores look like, show me twenty of them". The three distributions are those of the
paper's Fig. 4 (section 3.1).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import posixpath
import sys
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from . import storage
from .errors import BerniniError, ConfigError
from .manifest import Manifest
from .report_cards import Pictures, card, has_media, rejected, video_table
from .report_charts import TITLES, Histogram, funnel, histogram
from .report_numbers import histograms
from .report_pictures import Album, Span, make_album
from .report_rows import Chain, Choice, choose_rows, follow_parents, media_of, similarity_of
from .report_text import count, esc
from .schema import STOPS

MAX_PAIRS = 200
MAX_BYTES = 9_500_000
MAX_TABLE_ROWS = 500
BYTES_AROUND_PICTURE = 400   # an `<img>` and its button, generously
BYTES_OF_NOTICE = 8_000      # the list of media that could not be read, at most


@dataclass(frozen=True)
class Report:
    """A finished page and what stands on it."""

    path: str
    num_bytes: int
    num_pictures: int
    missing: dict[Span, str]


def build_report(manifest: Manifest, output: str | None = None, *, max_pairs: int = MAX_PAIRS,
                 max_bytes: int = MAX_BYTES) -> str:
    """Write the page and return its path: `output`, or one beside the folders of the stops."""
    return make_report(manifest, output, max_pairs=max_pairs, max_bytes=max_bytes).path


def make_report(manifest: Manifest, output: str | None = None, *, max_pairs: int = MAX_PAIRS,
                max_bytes: int = MAX_BYTES) -> Report:
    if max_pairs < 0:
        raise ConfigError(f"--max-pairs is {max_pairs}: give 0 or more")
    page = _Page.of(manifest, max_pairs)
    large, small = page.spans()
    # The words are written first, so that the pictures get all the room that is left.
    room = max_bytes - len(page.render(Album())) - BYTES_OF_NOTICE - BYTES_AROUND_PICTURE * page.num_media
    if room < 0:
        raise ConfigError(f"the text of the report alone is larger than {max_bytes / 1e6:g} MB less what its "
                          f"{page.num_media} pictures need: raise --max-mb, or lower --max-pairs")
    album = make_album(large, small, room)
    data = page.render(album)
    path = output or default_path(manifest)
    storage.write_bytes(path, data)
    return Report(path, len(data), len(album.pictures), album.missing)


def default_path(manifest: Manifest) -> str:
    """`<root>/report-pairs-demo-1a2b3c4d.html` for `<root>/pairs/demo-1a2b3c4d`, `<root>/report-pairs-kept.html` for
    `<root>/kept`.
    """
    path = manifest.path if storage.is_uri(manifest.path) else storage.resolve(manifest.path)[1]
    folder, name = posixpath.split(path)
    root = posixpath.dirname(folder) if posixpath.basename(folder) in STOPS else folder
    return storage.join(root, f"report-{manifest.stop.name}-{name}.html")


@dataclass
class _Page:
    manifest: Manifest
    chain: Chain
    choice: Choice
    charts: list[Histogram]

    @classmethod
    def of(cls, manifest: Manifest, max_pairs: int) -> _Page:
        chain = follow_parents(manifest)
        choice = choose_rows(chain, manifest, max_pairs if has_media(manifest) else MAX_TABLE_ROWS)
        return cls(manifest, chain, choice, histograms(manifest, choice.rejects))

    def spans(self) -> tuple[list[Span], list[Span]]:
        """Of the gallery, and of the examples of rejected rows."""
        if not has_media(self.manifest):
            return [], []
        examples = [row for _, _, rows in self.choice.rejected for row in rows]
        sides = ((self.choice.accepted, self.manifest), (examples, self.choice.rejects))
        return tuple([span for row in rows for _, _, span in media_of(row, owner) if span] for rows, owner in sides)

    @property
    def num_media(self) -> int:
        return sum(len(spans) for spans in self.spans())

    def render(self, album: Album) -> bytes:
        header, pictures = self.manifest.header, Pictures(album)
        script, style = _file("report.js"), _file("report.css")
        title = TITLES.get(self.manifest.stop.name, self.manifest.stop.name)
        html = Template(_file("report.html")).substitute(
            policy=_policy(script), title=esc(f"{title} · {self.manifest.name}"), style=style, script=script,
            width=album.width_px, heading=esc(title), name=esc(self.manifest.name), row=esc(self.manifest.stop.row),
            figures=_figures(header), notice=_notice(album, self.chain), funnel=funnel(self.chain.manifests),
            gallery_title="Gallery" if has_media(self.manifest) else "Rows",
            charts="".join(histogram(h) for h in self.charts), gallery=self._gallery(pictures),
            rejected=rejected(self.choice, pictures) or '<p class="empty">No row was dropped.</p>',
            columns=_columns(header), about=_about(self.manifest))
        return html.encode("utf-8", "replace")

    def _gallery(self, pictures: Pictures) -> str:
        rows = self.choice.accepted
        total = self.manifest.num_rows - sum((self.manifest.header.get("drops") or {}).values())
        if not rows:
            return '<p class="empty">No accepted row to show.</p>'
        if not has_media(self.manifest):
            shown = video_table(rows)
        else:
            shown = f'<div class="gallery">{"".join(card(row, self.manifest, pictures) for row in rows)}</div>'
        words = f"All {count(total)} accepted rows" if len(rows) == total else (
            f"{count(len(rows))} of {count(total)} accepted rows, evenly spread")
        how = _HOW_TO_READ if any(span.is_clip for span in self.spans()[0]) else ""
        return f'<p class="lead">{words}.{how}</p>{_tools(self.manifest, rows)}{shown}'


_HOW_TO_READ = (" Each picture shows ten moments spread over its whole clip, four a second: "
                "the white line is the place in the clip. Click to enlarge.")

_PAUSE = '<button type="button" id="pause" aria-pressed="false">Pause</button>'


def _tools(manifest: Manifest, rows: list[dict]) -> str:
    keys = (["similarity"] if similarity_of(rows[0]) else []) + ["duration", "video"]
    buttons = "".join(f'<button type="button" data-sort="{k}" aria-pressed="false">{k}</button>' for k in keys)
    return ('<div class="tools"><label><span>Find</span><input type="search" id="find" autocomplete="off" '
            'placeholder="file, words of a prompt, id"></label>'
            f'<div class="sorts" role="group" aria-label="Sort by"><span>Sort by</span>{buttons}</div>'
            f'{_PAUSE if has_media(manifest) else ""}'
            '<p id="found" role="status"></p></div>')


def _figures(header: dict) -> str:
    drops = header.get("drops") or {}
    rows = header["rows"]
    facts = [("rows", rows), ("accepted", rows - sum(drops.values())), ("dropped", sum(drops.values())),
             ("drop reasons", len(drops))]
    return "".join(f"<div><dt>{name}</dt><dd>{count(n)}</dd></div>" for name, n in facts)


def _notice(album: Album, chain: Chain) -> str:
    """What a reader must know before trusting the page."""
    lines = []
    if album.missing:
        reasons = list(dict.fromkeys(album.missing.values()))
        listed = "".join(f"<li>{esc(reason, 250)}</li>" for reason in reasons[:12])
        more = f"<li>and {len(reasons) - 12} more</li>" if len(reasons) > 12 else ""
        all_ = len(album.missing) + len(album.pictures)
        stills = any(not span.is_clip for span in (*album.missing, *album.pictures))
        of_all = count(all_, "picture" if stills else "clip")
        lines.append(f"<p><b>{count(len(album.missing))} of {of_all} could not be read</b>; "
                     f"their places say why.</p><ul>{listed}{more}</ul>")
    for parent in chain.absent[:4]:
        lines.append(f"<p><b>A parent could not be opened</b>, so the funnel begins later: {esc(parent, 300)}</p>")
    return f'<aside class="notice" aria-label="Notice">{"".join(lines)}</aside>' if lines else ""


def _columns(header: dict) -> str:
    lines = [f'<tr><th scope="row">{esc(name)}</th><td>{esc(c.get("type"), 120)}</td><td>{esc(c.get("unit"))}</td>'
             f'<td>{esc(c.get("doc"))}</td></tr>' for name, c in (header.get("columns") or {}).items()]
    return "".join(lines)


def _about(manifest: Manifest) -> str:
    """The rest of `manifest.json`, part by part."""
    header = manifest.header
    blocks = []
    for name, value in header.items():
        if name in ("stop", "rows", "accepted", "drops", "parts", "columns") or value in (None, [], {}):
            continue
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        if isinstance(value, (str, int, float)) or len(text) < 80:
            blocks.append(f'<p><b class="label">{esc(name)}</b> <span class="mono">{esc(text)}</span></p>')
        else:
            blocks.append(f"<details><summary>{esc(name)}</summary><pre>{esc(text, 20_000)}</pre></details>")
    return "".join(blocks)


def _policy(script: str) -> str:
    """Nothing is loaded from anywhere, and of scripts only this very one runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'")


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bernini report", description="Write one self-contained HTML page about "
                                     "a manifest: funnel, distributions, and a gallery of its rows.")
    parser.add_argument("manifest", help="folder of a manifest: OUTPUT/pairs/NAME-HASH")
    parser.add_argument("--output", help="file to write (default: beside the folders of the stops)")
    parser.add_argument("--max-pairs", type=int, default=MAX_PAIRS, help="rows in the gallery (%(default)s)")
    parser.add_argument("--max-mb", type=float, default=MAX_BYTES / 1e6, help="size of the page (%(default)g)")
    flags = parser.parse_args(argv)
    try:
        report = make_report(Manifest.open(flags.manifest), flags.output, max_pairs=flags.max_pairs,
                             max_bytes=round(flags.max_mb * 1e6))
    except (BerniniError, OSError) as error:
        print(f"bernini report: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    missing = f", {len(report.missing)} could not be read" if report.missing else ""
    print(f"{report.path} ({report.num_bytes / 1e6:.1f} MB, {report.num_pictures} clips and pictures{missing})")
    return 0
