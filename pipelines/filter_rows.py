"""`bernini filter`: rules over the columns of finished manifests; no media, no model, no recipe.

Rules are conditions that a row must keep, on any column that is there: measures that `bernini measure`
added, or a licence. Rows that break one stay, with their reason; rows dropped before keep theirs.
(`bernini decide` decides again with the settings of a recipe.)

    bernini filter OUT/clips/measure-1a2b3c4d --keep "overlay_text_area<=0.01" "border_top<=0.02" --write OUT/clean
    bernini filter OUT/samples/* --keep "task=v2v|i2i" --rights research --write OUT/allowed
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import tyro

from filters.licence import LICENCE_ID, RIGHTS, ClassifyLicence, rights_rule
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.errors import ConfigError
from manifests.manifest import HEADER, Manifest, ManifestWriter
from manifests.provenance import plain, versions
from manifests.settings import parse

from .command import print_funnel
from .sources import Sources

_CONDITION = re.compile(r"^\s*(?P<column>\w+)\s*(?P<sign><=|>=|=)\s*(?P<value>.+?)\s*$")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `bernini filter`."""

    manifests: tyro.conf.Positional[tuple[str, ...]]
    """Manifests of one kind."""
    write: str
    """Folder for the rows with their new drop reasons; it must not hold a manifest yet."""
    keep: tuple[str, ...] = ()
    """Conditions: COLUMN<=NUMBER, COLUMN>=NUMBER, COLUMN=WORD|WORD, or COLUMN=true."""
    rights: str = "any"
    """any, known (leaves out unknown licences), research (also no-derivatives), commercial (also non-commercial)."""
    keep_unmeasured: bool = False
    """Rows whose value is null pass; without it they are dropped as not measured."""

    def rules(self) -> tuple[Rule, ...]:
        rules = tuple(parse_rule(text, self.keep_unmeasured) for text in self.keep)
        return rules if self.rights == "any" else (*rules, rights_rule(self.rights))


def parse_rule(text: str, optional: bool = False) -> Rule:
    """"sharpness>=8" as a rule; `ConfigError` where it is none."""
    match = _CONDITION.match(text)
    if match is None:
        raise ConfigError(f"--keep {text!r}: write COLUMN<=NUMBER, COLUMN>=NUMBER or COLUMN=WORD|WORD")
    column, sign, value = match["column"], match["sign"], match["value"]
    if sign == "=":
        return Rule(column=column, allowed=tuple(value.split("|")), optional=optional)
    try:
        limit = float(value)
    except ValueError:
        raise ConfigError(f"--keep {text!r}: {value!r} is no number") from None
    return Rule(column=column, **{"max" if sign == "<=" else "min": limit}, optional=optional)


def main(argv: list[str]) -> int:
    """Drop rows by rules over any columns."""
    manifest = filter_rows(parse(Config, argv, prog="bernini filter", description=__doc__))
    print_funnel([manifest])
    print(f"manifest  {manifest.path}")
    return 0


def filter_rows(config: Config) -> Manifest:
    if storage.exists(storage.join(config.write, HEADER)):
        raise ConfigError(f"{config.write} holds a finished manifest, which never changes: name another folder")
    sources, rules = Sources(config.manifests), config.rules()
    if not rules:
        raise ConfigError("name at least one rule: --keep \"COLUMN<=NUMBER\", or --rights research")
    ops, new = [ApplyRules(rules)], ()
    if config.rights != "any":
        sources.require("licence")
        ops, new = [ClassifyLicence(), *ops], (LICENCE_ID, RIGHTS)
    for rule in rules:
        if rule.column not in {f.name for f in new}:
            sources.require(rule.column, f"; it has {', '.join(sources.schema.names)}")
            _check_type(rule, sources.schema.field(rule.column))
    sources.check_keys()
    schema = pa.schema([*(f for f in sources.schema if f.name not in {n.name for n in new}), *new])
    with ManifestWriter(config.write, sources.stop, schema) as writer:
        for batch in sources.batches():
            for op in ops:
                batch = op(batch)
            writer.append(batch)
        return writer.commit(name="filter", row=sources.stop.row, parents=sources.parents_of(config.write),
                             config=plain(config), rules=plain(rules), owners=sources.owners, versions=versions(),
                             **sources.feature_header(config.write))


def _check_type(rule: Rule, field: pa.Field) -> None:
    text = pa.types.is_string(field.type)
    if pa.types.is_boolean(field.type):
        if not rule.allowed or set(rule.allowed) - {"true", "false"}:
            raise ConfigError(f"the column {field.name} holds true and false: write {field.name}=true or =false")
        return
    number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    if (rule.allowed and not text) or (not rule.allowed and not number):
        raise ConfigError(f"the column {field.name} holds {field.type}: "
                          f"{'words are compared with =' if text else 'numbers with <= and >='}")
