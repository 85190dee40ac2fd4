"""A real browser opens the report page, and nothing in it complains or reaches out."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.report import build_report
from tests.chromium import browser

from .report_pages import HOSTILE_FILE, HOSTILE_PROMPT, film, is_animated, pair, write


@pytest.mark.browser
def test_chromium_opens_it(tmp_path):
    path = film(tmp_path / HOSTILE_FILE)
    rows = [pair(path, i, "too <b>late" if i > 5 else None, instruction=HOSTILE_PROMPT) for i in range(8)]
    report = build_report(write(tmp_path, "pairs", rows))
    with browser(tmp_path / "profile") as chromium:
        chromium.open(Path(report).as_uri())
        images = chromium.value("[...document.images].map((i) => [i.complete, i.naturalWidth, i.src])")
        assert len(images) == 16 and all(complete and width > 0 for complete, width, _ in images)
        assert all(is_animated(src) for _, _, src in images)
        first = "document.querySelector('#gallery .card').dataset.similarity"
        sort = "document.querySelector('[data-sort=similarity]').click();"
        assert chromium.value(sort + sort + first) == "0.665"
        assert chromium.value("find.value = 'p-0000000000000003'; find.dispatchEvent(new Event('input'));"
                              "found.textContent") == "1 of 6"
        assert chromium.value("document.querySelector('.frame').click(); large.open && "
                              "large.querySelectorAll('img').length") == 2
        assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
        assert chromium.complaints() == []
        loud = tmp_path / "loud.html"  # what the policy must stop, and this test must hear
        loud.write_text(Path(report).read_text().replace("</main>", '<img src="https://x.invalid/a.png">'
                                                         "<script>document.title = 'run'</script></main>"))
        chromium.open(loud.as_uri())
        assert chromium.value("document.title") != "run" and len(chromium.complaints()) >= 2
