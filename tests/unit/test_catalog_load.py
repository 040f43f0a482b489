"""Loading the catalog: overlays, aliases, problems told together, the cache, and hostile files."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import CatalogError, UnknownEntryError
from catalog.load import Catalog, built_in_directory, open_catalog
from catalog.read_yaml import parse_yaml
from catalog.schema import KINDS, Hardware, Node, Price, Technique
from catalog.summary import summaries

Write = Callable[..., Path]

GPU = """\
id: {id}
name: A GPU
aliases: [{alias}]
vendor: nvidia
generation: Test
compute_capability: 8.0
form_factor: SXM4
hbm: {hbm}
hbm_bandwidth: 2 TB/s
flops: {{bf16: 300 TFLOP/s}}
gpu_link: null
pcie: {{kind: PCIe, nominal: 30 GB/s, effective: 20 GB/s}}
tdp: 400 W
sources: [{{ref: a test}}]
checked: 2026-11-01
"""


def gpu(name: str = "x1", alias: str = "X-One", hbm: str = "80 GiB") -> str:
    return GPU.format(id=name, alias=alias, hbm=hbm)


def problems_of(overlay: Path) -> list[str]:
    with pytest.raises(CatalogError) as refusal:
        open_catalog([overlay]).all(Hardware)
    return refusal.value.problems


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --------------------------------------------------------------------------- names and overlays


@pytest.mark.parametrize("spelling", ["A100", "a100", "A100-80GB", "a100-sxm-80gb", "  A100 "])
def test_an_entry_answers_to_its_aliases_in_any_case(spelling: str) -> None:
    assert open_catalog().get(Hardware, spelling).id == "a100-sxm-80gb"


def test_an_unknown_name_is_told_with_the_nearest_ones() -> None:
    with pytest.raises(UnknownEntryError, match="did you mean A100") as refusal:
        open_catalog().get(Hardware, "A1000")
    assert "plan catalog list hardware" in str(refusal.value)


def test_quantities_become_si_numbers() -> None:
    a100 = open_catalog().get(Hardware, "A100")
    assert (a100.hbm, a100.tdp) == (80 * 2**30, 400)
    assert a100.hbm_bandwidth == pytest.approx(2.039e12)


def test_the_last_overlay_wins_and_entries_are_replaced_whole(write_entry: Write) -> None:
    first = write_entry("hardware", "a100-sxm-80gb", gpu("a100-sxm-80gb", "A100", "60 GiB"), "first")
    second = write_entry("hardware", "a100-sxm-80gb", gpu("a100-sxm-80gb", "A100", "50 GiB"), "second")
    assert open_catalog([first, second]).get(Hardware, "A100").hbm == 50 * 2**30
    assert open_catalog([second, first]).get(Hardware, "A100").hbm == 60 * 2**30
    overlaid = open_catalog([first])
    assert overlaid.get(Hardware, "A100").generation == "Test"
    assert overlaid.file_of(Hardware, "A100") == first / "hardware" / "a100-sxm-80gb.yaml"
    assert open_catalog().get(Hardware, "A100").hbm == 80 * 2**30


def test_the_users_own_directory_is_read_before_the_named_ones(
    write_entry: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = write_entry("hardware", "x1", gpu(hbm="10 GiB"), "user")
    monkeypatch.setenv("PLAN_CATALOG", str(user))
    assert open_catalog().get(Hardware, "X-One").hbm == 10 * 2**30
    named = write_entry("hardware", "x1", gpu(hbm="20 GiB"), "named")
    assert open_catalog([named]).get(Hardware, "x1").hbm == 20 * 2**30


def test_a_missing_overlay_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="isn't a directory"):
        open_catalog([tmp_path / "nowhere"])


def test_the_hash_depends_on_facts_and_on_nothing_else(write_entry: Write, tmp_path: Path) -> None:
    here = write_entry("hardware", "x1", gpu(), "here")
    there = write_entry("hardware", "x1", gpu(), "there")
    other = write_entry("hardware", "x1", gpu(hbm="81 GiB"), "other")
    hashes = [Catalog([overlay]).content_hash for overlay in (here, there, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert open_catalog().content_hash not in hashes


# --------------------------------------------------------------------------- problems


def test_all_problems_of_all_files_are_told_together_with_field_and_fix(write_entry: Write) -> None:
    write_entry("hardware", "x1", gpu(hbm="80").replace("sources: [{ref: a test}]\n", "").replace("tdp", "tpd"))
    overlay = write_entry(
        "hardware", "x2", gpu("x2", "X-Two", "80 GigaBytes").replace("effective: 20", "effective: 40")
    )
    problems = problems_of(overlay)
    found = "\n".join(problems)
    assert "x1.yaml: hbm: '80' has no unit; write for example '80 GiB'" in found
    assert "x1.yaml: sources: missing; add it" in found
    assert "x1.yaml: tpd: unknown field; did you mean tdp?" in found
    assert "x1.yaml: tdp: missing" in found
    assert "x2.yaml: hbm: '80 GigaBytes' has the unknown unit 'GigaBytes'" in found
    assert "x2.yaml: pcie: effective bandwidth exceeds nominal" in found
    assert len(problems) == 6


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("checked: 2026-11-01\n", "", "checked: missing"),
        ("sources: [{ref: a test}]", "sources: []", "sources: "),
        ("checked: 2026-11-01", "checked: 2026-13-41", "line 15, column 10: month must be in 1..12"),
        ("checked: 2026-11-01", "checked: soon", "checked: "),
        ("id: x1", "id: x2", "rename the file to x2.yaml"),
        ("id: x1", "id: X 1", "id: "),
        ("vendor: nvidia", "vendor: acme", "vendor: "),
        ("name: A GPU", "name: A GPU\nname: Another", "'name' is given twice"),
        ("name: A GPU", "name: &a A GPU\nnotes: *a", "line 3: aliases (*name) aren't supported"),
        ("name: A GPU", "name: [", "line "),
        ("name: A GPU", "name: \x00", "not YAML"),
        ("name: A GPU", "? [a, b]\n: c", "a key must be plain text"),
        ("name: A GPU", "name: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("name: A GPU", "name: !!map [1, 2]", "line 2"),
        ("name: A GPU", "<<: 3", "line 2"),
        ("tdp: 400 W", "tdp: " + "9" * 5000, "line 13, column 6"),
        ("tdp: 400 W", "tdp: -1 W", "tdp: '-1 W' is not a positive number"),
        ("tdp: 400 W", "tdp: " + "[" * 900 + "]" * 900, "nested more than 50 deep"),
        ("tdp: 400 W", "tdp: " + "{a: " * 60 + "}" * 60, "nested more than 50 deep"),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_file_is_told_and_never_crashes(write_entry: Write, old: str, new: str, told: str) -> None:
    assert old in gpu()
    problems = problems_of(write_entry("hardware", "x1", gpu().replace(old, new)))
    assert all("x1.yaml: " in problem for problem in problems)
    assert told in "\n".join(problems)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no entry"),
        (b"- a\n- b\n", "holds no entry"),
        (b"\xff\xfe\x00binary", "isn't UTF-8"),
        ("name: Größe\n".encode("latin-1"), "isn't UTF-8"),
        (b"#" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_what_is_no_entry_is_told(write_entry: Write, content: bytes, told: str) -> None:
    overlay = write_entry("hardware", "x1", "")
    (overlay / "hardware" / "x1.yaml").write_bytes(content)
    assert [told in problem for problem in problems_of(overlay)] == [True]


def test_a_bomb_of_aliases_is_refused_before_it_is_built(write_entry: Write) -> None:
    levels = ["notes: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"n{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    start = time.perf_counter()
    problems = problems_of(write_entry("hardware", "x1", "\n".join(levels)))
    assert "aliases (*name) aren't supported" in problems[0]
    assert time.perf_counter() - start < 2


def test_a_dangling_link_and_a_folder_are_told(write_entry: Write) -> None:
    overlay = write_entry("hardware", "x1", gpu())
    (overlay / "hardware" / "gone.yaml").symlink_to(overlay / "nothing")
    (overlay / "hardware" / "folder.yaml").mkdir()
    problems = problems_of(overlay)
    assert ["folder.yaml: can't be read" in problems[0], "gone.yaml: can't be read" in problems[1]] == [True, True]


def test_an_alias_of_somebody_else_is_told(write_entry: Write) -> None:
    problems = problems_of(write_entry("hardware", "x1", gpu(alias="A100")))
    assert "aliases: 'A100' already names" in problems[0]


_TREES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Hardware.model_fields, "junk"]), _TREES), st.sampled_from(sorted(KINDS)))
def test_any_tree_is_an_entry_or_told(tmp_path_factory: pytest.TempPathFactory, tree: object, kind: str) -> None:
    overlay = tmp_path_factory.mktemp("any")
    (overlay / kind).mkdir()
    (overlay / kind / "x1.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(CatalogError):
        Catalog([overlay]).all(KINDS[kind])


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#? \n\t<.1~", max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text)


# --------------------------------------------------------------------------- the cache


def test_an_edit_is_noticed(write_entry: Write, own_cache: Path) -> None:
    overlay = write_entry("hardware", "x1", gpu(hbm="70 GiB"))
    assert open_catalog([overlay]).get(Hardware, "x1").hbm == 70 * 2**30
    write_entry("hardware", "x1", gpu(hbm="71 GiB"))
    assert open_catalog([overlay]).get(Hardware, "x1").hbm == 71 * 2**30


def test_an_edit_that_keeps_size_and_time_is_noticed(write_entry: Write, own_cache: Path) -> None:
    overlay = write_entry("hardware", "x1", gpu(hbm="70 GiB"))
    file = overlay / "hardware" / "x1.yaml"
    before = file.stat()
    assert open_catalog([overlay]).get(Hardware, "x1").hbm == 70 * 2**30
    write_entry("hardware", "x1", gpu(hbm="71 GiB"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_catalog([overlay]).get(Hardware, "x1").hbm == 71 * 2**30


def test_new_and_removed_files_are_noticed(write_entry: Write, own_cache: Path) -> None:
    overlay = write_entry("hardware", "x1", gpu())
    assert not open_catalog([overlay]).has(Hardware, "x2")
    write_entry("hardware", "x2", gpu("x2", "X-Two"))
    assert open_catalog([overlay]).has(Hardware, "x2")
    (overlay / "hardware" / "x2.yaml").unlink()
    assert not open_catalog([overlay]).has(Hardware, "x2")


def test_the_cache_is_used(write_entry: Write, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = write_entry("hardware", "x1", gpu())
    first = open_catalog([overlay]).get(Hardware, "x1")

    def refuse(*_: object, **__: object) -> Iterator[object]:
        raise AssertionError("parsed YAML although nothing changed")

    monkeypatch.setattr("catalog.read_yaml.read_entries", refuse)
    assert open_catalog([overlay]).get(Hardware, "x1") == first


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"\xff", b'{"fingerprint": []}', b'{"compiled": {}}'])
def test_a_broken_cache_is_compiled_anew(write_entry: Write, own_cache: Path, garbage: bytes) -> None:
    overlay = write_entry("hardware", "x1", gpu())
    first = open_catalog([overlay]).get(Hardware, "x1")
    files = list(own_cache.iterdir())
    assert files
    for file in files:
        file.write_bytes(garbage)
    assert open_catalog([overlay]).get(Hardware, "x1") == first
    assert json.loads(files[0].read_bytes())["compiled"]["entries"]


def test_no_cache_directory_only_costs_time(
    write_entry: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write into read-only directories, so a file stands where the directory should be.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("PLAN_CACHE", str(blocked / "cache"))
    overlay = write_entry("hardware", "x1", gpu())
    assert open_catalog([overlay]).get(Hardware, "x1").name == "A GPU"
    assert blocked.read_text() == ""


def test_catalogs_with_problems_are_not_cached(write_entry: Write, own_cache: Path) -> None:
    overlay = write_entry("hardware", "x1", gpu(hbm="80"))
    assert problems_of(overlay) == problems_of(overlay)


# --------------------------------------------------------------------------- what ships


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_shipped_entry_loads_and_has_a_summary(kind: str) -> None:
    rows = summaries(open_catalog(), kind)
    assert [row["id"] for row in rows] == sorted(path.stem for path in (built_in_directory() / kind).glob("*.yaml"))


def test_offers_are_cheapest_first_and_dated() -> None:
    catalog = open_catalog()
    for hardware in catalog.all(Hardware):
        offers = catalog.offers(hardware)
        assert [offer.usd_per_gpu_hour for offer in offers] == sorted(offer.usd_per_gpu_hour for offer in offers)
        assert all(offer.observed <= offer.checked <= dt.date.today() for offer in offers)
    assert catalog.all(Price)


def test_a_gpu_has_the_server_that_names_it() -> None:
    catalog = open_catalog()
    for node in catalog.all(Node):
        for hardware_id in node.default_for:
            assert catalog.default_node(catalog.get(Hardware, hardware_id)) == node


def test_points_are_found_by_id_and_by_strength() -> None:
    catalog = open_catalog()
    for technique in catalog.all(Technique):
        for point in technique.points:
            assert catalog.point(point.id) == (technique, point)
        strengths = [point.strength for point in technique.points]
        for point in technique.points:
            if point.strength is not None and strengths.count(point.strength) == 1:
                assert catalog.point(f"{technique.id}:{point.strength}") == (technique, point)


def test_an_unknown_strength_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownEntryError, match="snapkv has "):
        open_catalog().point("snapkv:12345")
