"""Licences as people write them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from filters.licence import ClassifyLicence, rights_rule
from manifests.errors import ConfigError
from manifests.licences import BOTH, NO_DERIVATIVES, NON_COMMERCIAL, OPEN, POLICIES, UNKNOWN, classify


@pytest.mark.parametrize("text, spdx, rights", [
    ("CC BY-NC-ND 4.0", "CC-BY-NC-ND-4.0", BOTH),
    ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0", BOTH),
    ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International", "CC-BY-NC-ND-4.0", BOTH),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0", NON_COMMERCIAL), ("CC BY-ND 2.0", "CC-BY-ND-2.0", NO_DERIVATIVES),
    ("cc by", "CC-BY", OPEN), ("CC-BY-SA-3.0", "CC-BY-SA-3.0", OPEN), ("CC0 1.0 Universal", "CC0-1.0", OPEN),
    ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", OPEN), ("apache-2.0", "Apache-2.0", OPEN),
    ("MIT License", "MIT", OPEN), ("Pexels License", "LicenseRef-Pexels", OPEN),
    ("CC BY 4.0 and CC BY-NC 4.0", "CC-BY-4.0 AND CC-BY-NC-4.0", NON_COMMERCIAL),
    ("CC BY 4.0, non-commercial", "CC-BY-4.0", NON_COMMERCIAL), ("CC-BY-4.0-NC", "CC-BY-4.0", NON_COMMERCIAL),
    ("CC BY 2.0 / no derivatives", "CC-BY-2.0", NO_DERIVATIVES), ("ccbync", "CC-BY-NC", NON_COMMERCIAL),
    ("CC BY 4.0 Non-Commercial No Derivatives", "CC-BY-4.0", BOTH), ("CC BY 4.0 (personal use only)", None, UNKNOWN),
    ("CC BY 4.0, all rights reserved", None, UNKNOWN), ("not CC BY", None, UNKNOWN),
    ("Apache 2.0 with Commons Clause", None, UNKNOWN), ("MIT code, videos: no redistribution", None, UNKNOWN),
    ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause", OPEN), ("cc-by-sa-3.0-de", "CC-BY-SA-3.0", OPEN),
    ("for research purposes only", None, NON_COMMERCIAL), ("non-commercial", None, NON_COMMERCIAL),
    (None, None, UNKNOWN), ("", None, UNKNOWN), ("other", None, UNKNOWN), ("YouTube standard licence", None, UNKNOWN),
    ("All rights reserved, MIT Media Lab", None, UNKNOWN), ("not under the MIT licence", None, UNKNOWN),
    ("We took the videos from many places, some of them are said to be under the MIT licence", None, UNKNOWN),
])
def test_a_licence_is_understood_or_unknown(text, spdx, rights):
    assert (classify(text).spdx, classify(text).rights) == (spdx, rights)


@pytest.mark.parametrize("policy, kept", [("any", 5), ("known", 4), ("research", 2), ("commercial", 1)])
def test_a_policy_is_a_rule_over_the_column(policy, kept):
    texts = ["MIT", "CC BY-NC 4.0", "CC BY-ND 4.0", "CC BY-NC-ND 4.0", None]
    table = ClassifyLicence()(pa.table({"licence": pa.array(texts, pa.string())}))
    reasons = rights_rule(policy).reasons(table["rights"]).to_pylist()
    assert reasons.count(None) == kept
    assert reasons[3] is None or reasons[3] == "rights is non-commercial no-derivatives"


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(ConfigError, match=f"no policy 'all'.*{', '.join(POLICIES)}"):
        rights_rule("all")
