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
_KNOWN = (
    (r"\bcc ?0\b|publicdomain zero|public domain dedication", "CC0-1.0"),
    (r"public ?domain|\bpdm\b|no known copyright", "PDM-1.0"),
    (r"\bapache( licen[sc]e)?( version)? ?2(\.0)?\b|\bapache\b", "Apache-2.0"),
    (r"\bmit\b", "MIT"),
    (r"\bbsd 2\b", "BSD-2-Clause"),
    (r"\bbsd( 3)?\b", "BSD-3-Clause"),
    (r"\bodc by\b", "ODC-By-1.0"),
    (r"\bodbl\b", "ODbL-1.0"),
    (r"\bcdla permissive( 2(\.0)?)?\b", "CDLA-Permissive-2.0"),
    (r"\bpexels\b", "LicenseRef-Pexels"),
    (r"\bpixabay\b", "LicenseRef-Pixabay"),
    (r"\bunsplash\b", "LicenseRef-Unsplash"),
)
_RESEARCH = re.compile(r"non ?commercial|research (purposes? )?only|academic|not for commercial|research use")
_DENIED = re.compile(r"\b(not|except|all rights reserved|proprietary)\b")  # says something that needs a reader
_MAX_WORDS = 10  # a name of a licence is short; a paragraph that mentions one is not understood
_NO_DERIVATIVES = re.compile(r"no ?deriv|without modification")
_CC = re.compile(r"\b(?:cc|creative ?commons|licenses) ?(by(?: (?:nc|nd|sa))*)(?: (\d\.\d))?")


@dataclass(frozen=True)
class Licence:
    """`spdx` is None where no licence known here is named; `rights` is one of CLASSES."""

    spdx: str | None
    rights: str


@lru_cache(maxsize=4096)
def classify(text: str | None) -> Licence:
    words = _fold(text)
    if not words:
        return Licence(None, UNKNOWN)
    limited = (bool(_RESEARCH.search(words)), bool(_NO_DERIVATIVES.search(words)))
    if found := list(_CC.finditer(words)):  # of several the strictest parts count
        parts = {part for match in found for part in match[1].split()}
        names = ["-".join(["CC", *(p.upper() for p in match[1].split()), *filter(None, [match[2]])]) for match in found]
        return Licence(" AND ".join(dict.fromkeys(names)), _rights(limited[0] or "nc" in parts,
                                                                   limited[1] or "nd" in parts))
    if any(limited):
        return Licence(None, _rights(*limited))
    if _DENIED.search(words) or len(words.split()) > _MAX_WORDS:
        return Licence(None, UNKNOWN)
    spdx = next((spdx for pattern, spdx in _KNOWN if re.search(pattern, words)), None)
    return Licence(spdx, OPEN if spdx else UNKNOWN)


def allowed(policy: str) -> tuple[str, ...]:
    """Classes of rights that a policy keeps."""
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r} for --rights; known: {', '.join(POLICIES)}")
    return POLICIES[policy]


def _fold(text: str | None) -> str:
    """Lower case, blanks for all but letters, digits and the points of version numbers."""
    folded = re.sub(r"[^a-z0-9.]+", " ", (text or "").lower())
    folded = re.sub(r"\b(attribution)\b", "by", folded)
    folded = re.sub(r"\bnon ?commercial\b(?= no|$| \d| share)", "nc", folded) if "by" in folded else folded
    folded = re.sub(r"\bno ?deriv(?:ative)?s?\b", "nd", folded) if "by" in folded else folded
    folded = re.sub(r"\bshare ?alike\b", "sa", folded)
    return re.sub(r"\s+", " ", folded).strip()


def _rights(non_commercial: bool, no_derivatives: bool) -> str:
    if non_commercial and no_derivatives:
        return BOTH
    return NON_COMMERCIAL if non_commercial else NO_DERIVATIVES if no_derivatives else OPEN
