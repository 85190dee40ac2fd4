"""Licences as people write them → an identifier and what it forbids.

Lists, dataset cards and video sites write one licence in many ways ("CC BY-NC-ND 4.0",
"cc-by-nc-nd-4.0", "https://creativecommons.org/licenses/by-nc-nd/4.0/"). `classify` gives the
identifier of SPDX (spdx.org/licenses; without a version where none is stated) and what a training set must mind:

* non-commercial: NC licences, "research only", "academic use"
* no-derivatives: ND licences. An edited target is a derivative of its source.
* unknown: nothing stated, or words that are not understood. Not understood is not allowed.

This sorts what is stated. It is no legal advice, and it cannot know whether the statement is true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .errors import ConfigError

OPEN, NON_COMMERCIAL, NO_DERIVATIVES, UNKNOWN = "open", "non-commercial", "no-derivatives", "unknown"
BOTH = f"{NON_COMMERCIAL} {NO_DERIVATIVES}"
CLASSES = (OPEN, NON_COMMERCIAL, NO_DERIVATIVES, BOTH, UNKNOWN)

# What may stay. "research": work that earns nothing, but edits; "commercial": nothing that forbids anything.
POLICIES = {
    "any": CLASSES,
    "known": (OPEN, NON_COMMERCIAL, NO_DERIVATIVES, BOTH),
    "research": (OPEN, NON_COMMERCIAL),
    "commercial": (OPEN,),
}

# Words of a licence (after folding to lower case and blanks) -> SPDX identifier; the first that fits counts.
_KNOWN = tuple((re.compile(rf"\b(?:{pattern})\b"), spdx) for pattern, spdx in (
    (r"cc ?0|cc zero|creative ?commons zero|publicdomain zero|public ?domain dedication", "CC0-1.0"),
    (r"public ?domain(?: mark)?|pdm|no known copyright(?: restrictions)?", "PDM-1.0"),
    (r"apache", "Apache-2.0"),
    (r"mit", "MIT"),
    (r"bsd 2(?: clause)?", "BSD-2-Clause"),
    (r"bsd(?: 3)?(?: clause)?", "BSD-3-Clause"),
    (r"odc by", "ODC-By-1.0"),
    (r"odbl", "ODbL-1.0"),
    (r"cdla permissive", "CDLA-Permissive-2.0"),
    (r"pexels", "LicenseRef-Pexels"),
    (r"pixabay", "LicenseRef-Pixabay"),
    (r"unsplash", "LicenseRef-Unsplash"),
))
_RESEARCH = re.compile(r"\b(?:nc|not for commercial(?: purposes?| use)?|(?:for )?(?:research|academic)(?: (?:and|or) "
                       r"(?:research|academic|education(?:al)?))?(?: purposes?| use| usage)*(?: only)?)\b")
_NO_DERIVATIVES = re.compile(r"\bnd\b|\bwithout modifications?\b")
_CC = re.compile(r"\b(?:cc|creative ?commons|licenses) ?(by(?: (?:nc|nd|sa))*)\b(?: (\d\.\d))?")
# What may stand beside a licence's name without changing it. Any other word needs a reader: "only", "except", a name.
_HARMLESS = re.compile(
    r"\b(?:via wikimedia commons|https?|www|creativecommons\.org|opensource\.org|licen[sc]e[sd]?|public|legalcode|deed|"
    r"en|the|an?|this|is|under|and|or|of|terms|see|international|unported|generic|universal|version|v|sa|content|new|"
    r"revised|simplified|expat|database|igo|us|uk|de|fr|es|it|nl|au|ca|br|jp|at|ch|pl|pt|se)\b|\b\d+(?:\.\d+)*\b|\.")


@dataclass(frozen=True)
class Licence:
    """`spdx` is None where no licence known here is named; `rights` is one of CLASSES."""

    spdx: str | None
    rights: str


@lru_cache(maxsize=4096)
def classify(text: str | None) -> Licence:
    words = _fold(text)
    named = list(_CC.finditer(words))
    known = next((spdx for pattern, spdx in _KNOWN if pattern.search(words)), None)
    if not _is_understood(words):
        return Licence(None, UNKNOWN)
    rights = _rights(bool(_RESEARCH.search(words)), bool(_NO_DERIVATIVES.search(words)))
    if named:  # of several the strictest parts count
        names = ["-".join(["CC", *(p.upper() for p in match[1].split()), *filter(None, [match[2]])]) for match in named]
        return Licence(" AND ".join(dict.fromkeys(names)), rights)
    return Licence(known, rights if known or rights != OPEN else UNKNOWN)


def _is_understood(words: str) -> bool:
    """Whether nothing is left of the words without what is known and what is harmless."""
    for pattern in (_CC, *(p for p, _ in _KNOWN), _RESEARCH, _NO_DERIVATIVES, _HARMLESS):
        words = pattern.sub(" ", words)
    return not words.strip()


def allowed(policy: str) -> tuple[str, ...]:
    """Classes of rights that a policy keeps."""
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r} for --rights; known: {', '.join(POLICIES)}")
    return POLICIES[policy]


def _fold(text: str | None) -> str:
    """Lower case, blanks for all but letters, digits and points, one spelling for the parts of CC licences."""
    folded = re.sub(r"[^a-z0-9.]+", " ", (text or "").lower())
    for pattern, short in ((r"attribution", "by"), (r"non ?commercial(?: (?:use|purposes?))?(?: only)?", "nc"),
                           (r"no ?deriv(?:ative)?s?(?: works?)?", "nd"), (r"share ?alike", "sa")):
        folded = re.sub(rf"\b{pattern}\b", short, folded)
    apart = re.sub(r"\b(cc)?(by)((?:nc|nd|sa)*)\b", lambda m: " ".join([m[1] or "", m[2], *re.findall("..", m[3])]),
                   folded)  # "ccbync"
    return re.sub(r"\s+", " ", apart).strip()


def _rights(non_commercial: bool, no_derivatives: bool) -> str:
    if non_commercial and no_derivatives:
        return BOTH
    return NON_COMMERCIAL if non_commercial else NO_DERIVATIVES if no_derivatives else OPEN
