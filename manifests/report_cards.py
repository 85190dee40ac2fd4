"""One row of a manifest as a card: its clips side by side, its numbers, its prompt, its issues."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .manifest import Manifest
from .report_pictures import DATA_URI, Album, Span
from .report_rows import Choice, media_of, prompts_of, similarity_of
from .report_text import base_name, clock, esc, number, seconds

# Columns that a card shows in words or pictures already, or that say nothing about one row.
_SAID = {"issues", "drop_reason", "instruction", "transition", "caption", "video_similarity", "frame_similarity",
         "is_human", "num_attempts", "images", "texts", "conditions", "recipe", "inputs", "videos", "path", "start_s",
         "end_s", "duration_s", "relative_path"}
_SIDES = ("source_", "target_")


@dataclass
class Pictures:
    """Writes `<img>` elements; a clip that was shown before is named, not repeated.

    The script of the page gives the repeated ones the data of the first: data URIs cannot be
    shared otherwise, and one clip is often part of many pairs.
    """

    album: Album
    ids: dict[Span, str] = field(default_factory=dict)

    def img(self, span: Span, words: str) -> str:
        """Sizes are left to CSS: pictures of one row stand side by side whatever their shape."""
        if span in self.ids:
            return f'<img data-same="{self.ids[span]}" alt="{esc(words)}">'
        self.ids[span] = f"clip-{len(self.ids)}"
        data = base64.b64encode(self.album.pictures[span]).decode()
        return f'<img id="{self.ids[span]}" src="{DATA_URI}{data}" alt="{esc(words)}">'


def card(row: dict, manifest: Manifest, pictures: Pictures) -> str:
    media = list(media_of(row, manifest))
    spans = [span for _, _, span in media if span]
    names = list(dict.fromkeys(_short(base_name(path)) for _, path, _ in media if path)) or ["no media named"]
    sort = {"similarity": row.get(similarity_of(row)), "duration": sum(s.end_s - s.start_s for s in spans if s.is_clip),
            "video": " ".join(names)}
    data = "".join(f' data-{k}="{esc(f"{v:.6g}" if isinstance(v, float) else v)}"' for k, v in sort.items()
                   if v is not None)
    figures = "".join(_figure(role, path, span, pictures) for role, path, span in media)
    return (f'<article class="card"{data}><header><h3 title="{esc(" | ".join(_paths(media)))}">'
            f'{esc(" → ".join(names), 200)}</h3>{_badges(row)}</header>'
            f'<div class="clips n{min(len(media), 2)}">{figures}</div>{_dropped(row)}{_prompts(row)}{_issues(row)}'
            f"{_measures(row, manifest)}</article>")


def _short(name: str) -> str:
    """Names that are a hash of the content say nothing: eight digits tell them apart."""
    return re.sub(r"^([0-9a-f]{8})[0-9a-f]{24}(?=\.)", r"\1…", name)


def _paths(media: Sequence[tuple]) -> list[str]:
    return list(dict.fromkeys(path for _, path, _ in media if path))


def _badges(row: dict) -> str:
    badges = []
    if name := similarity_of(row):
        badges.append(f'<span class="badge" title="{name}"><span class="unseen">similarity </span>'
                      f'<b>{esc(_fixed(row[name]))}</b></span>')
    if "is_human" in row:
        words = {True: "people", False: "no people", None: "people unknown"}[row["is_human"]]
        badges.append(f'<span class="badge quiet" title="is_human">{words}</span>')
    if row.get("task"):
        badges.append(f'<span class="badge quiet" title="task">{esc(row["task"], 60)}</span>')
    return "".join(badges)


def _fixed(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _figure(role: str, path: str | None, span: Span | None, pictures: Pictures) -> str:
    if span is None:
        return (f'<figure><div class="frame absent"><p><b>no clip named</b><br>{esc(base_name(path))}</p></div>'
                f"<figcaption><b>{esc(role, 40)}</b></figcaption></figure>")
    where, length = _where(span)
    if span in pictures.album.pictures:
        kind = "clip" if span.is_clip else "picture"
        words = f"{role} {kind} of {base_name(path)}{where and ', ' + where}"
        shown = f'<button type="button" class="frame" title="enlarge">{pictures.img(span, words)}</button>'
    else:
        reason = pictures.album.missing.get(span, "not read")
        shown = (f'<div class="frame absent"><p><b>media could not be read</b><br>'
                 f"{esc(reason, 160)}</p></div>")
    return (f'<figure>{shown}<figcaption><b>{esc(role, 40)}</b> <span>{where}</span> '
            f'<span class="muted">{length}</span></figcaption></figure>')


def _where(span: Span) -> tuple[str, str]:
    """The part of the file that is shown, and its length; nothing for a picture file."""
    if span.is_clip:
        return f"{clock(span.start_s)} – {clock(span.end_s)}", seconds(span.end_s - span.start_s)
    return (clock(span.start_s) if span.start_s is not None else ""), ""


def _dropped(row: dict) -> str:
    return f'<p class="dropped">{esc(row["drop_reason"], 300)}</p>' if row.get("drop_reason") else ""


def _prompts(row: dict) -> str:
    lines = [f'<p class="{label}"><b class="label">{label}</b> {esc(text)}</p>' for label, text in prompts_of(row)]
    return f'<div class="prompts">{"".join(lines)}</div>' if lines else ""


def _issues(row: dict) -> str:
    lines = "".join(f"<li>{esc(issue, 300)}</li>" for issue in (row.get("issues") or [])[:8])
    return f'<ul class="issues" aria-label="issues">{lines}</ul>' if lines else ""


def _measures(row: dict, manifest: Manifest) -> str:
    """The remaining columns: those of both sides in two columns, the others in one."""
    rest = {n: v for n, v in row.items() if n not in _SAID and v is not None}
    sided = dict.fromkeys(n.removeprefix(side) for side in _SIDES for n in rest if n.startswith(side))
    sided = [n for n in sided if n not in _SAID]
    single = [n for n in rest if not n.startswith(_SIDES)]
    if not sided and not single:
        return ""
    lines = [f'<tr><th scope="row">{esc(n)}</th><td colspan="2">{_value(rest[n])}</td></tr>' for n in single]
    if sided:
        lines.append('<tr><th></th><th scope="col">source</th><th scope="col">target</th></tr>')
        lines += [f'<tr><th scope="row">{esc(n)}</th>' + "".join(f"<td>{_value(rest.get(side + n))}</td>"
                                                                for side in _SIDES) + "</tr>" for n in sided]
    key = manifest.stop.key
    return (f'<details class="more"><summary>all columns <span class="mono">{esc(row.get(key), 60)}</span></summary>'
            f"<table>{''.join(lines)}</table></details>")


def _value(value: object) -> str:
    return number(value) if value is None or isinstance(value, (int, float)) else esc(value, 300)


def rejected(choice: Choice, pictures: Pictures) -> str:
    """For each drop reason how many, and a few examples."""
    blocks = []
    for reason, num, rows in choice.rejected:
        cards = [card(row, choice.rejects, pictures) for row in rows] if has_media(choice.rejects) else []
        shown = f'<div class="gallery small">{"".join(cards)}</div>' if cards else video_table(rows)
        blocks.append(f'<details class="reason"><summary><b>{esc(reason, 200)}</b> <span class="muted">{number(num)}'
                      f" dropped, {len(rows)} shown</span></summary>{shown}</details>")
    if choice.num_reasons > len(choice.rejected):
        blocks.append(f'<p class="muted">{choice.num_reasons - len(choice.rejected)} rarer reasons are not shown.</p>')
    return "".join(blocks)


def has_media(manifest: Manifest) -> bool:
    return manifest.stop.name != "videos"


_VIDEO_COLUMNS = ("relative_path", "verdict", "width", "height", "fps", "decoded_s", "video_codec",
                  "num_frames_decoded", "num_frames_corrupt", "drop_reason", "issues")


def video_table(rows: Iterable[dict]) -> str:
    """Videos as a table: what the file is, the verdict on it, and what is wrong with it."""
    rows = list(rows)
    shown = [n for n in _VIDEO_COLUMNS if any(row.get(n) not in (None, []) for row in rows)]
    head = "".join(f'<th scope="col">{esc(n)}</th>' for n in shown)
    lines = []
    for row in rows:
        cells = "".join(f'<td data-column="{n}">{_cell(row.get(n))}</td>' for n in shown)
        lines.append(f'<tr data-video="{esc(row.get("relative_path"))}" '
                     f'data-duration="{row.get("decoded_s") or 0:.6g}">{cells}</tr>')
    return (f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>")


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "<br>".join(esc(line, 300) for line in value[:8])
    return "" if value is None else _value(value)
