"""Scenarios: overrides as one types them, with everything that is wrong told at once."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.whatif.scenario import read_changes, read_scenarios, read_sets, scenario, split_name, with_unique_names

BASE = {"ctx": "128K", "gpus": "8xA100", "max_latency": "200ms"}


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("gpus=8xH100", {"gpus": "8xH100"}),
        ("gpus=8xH100, ctx=32K", {"gpus": "8xH100", "ctx": "32K"}),
        ("techniques=kv_fp8,h2o,ctx=32K", {"techniques": "kv_fp8,h2o", "ctx": "32K"}),
        ("ctx=32K,techniques=kv_fp8,h2o", {"ctx": "32K", "techniques": "kv_fp8,h2o"}),
        ("--max-latency=50ms", {"max_latency": "50ms"}),
        ("max_latency=none", {"max_latency": None}),
        ("users=", {"users": None}),
        ("weights=none", {"weights": "none"}),
    ],
)
def test_overrides_are_cut_where_the_next_field_begins(text: str, changes: dict[str, object]) -> None:
    assert read_changes(text) == changes


def test_every_bad_piece_of_an_override_is_told() -> None:
    with pytest.raises(InputError) as caught:
        read_changes("fast,gpsu=8xH100,ctx=1K,ctx=2K")
    assert caught.value.problems == [
        "'fast': no 'field=value'; write for example gpus=8xH100",
        "gpsu: unknown field; did you mean gpus?",
        "ctx: given twice; keep one",
    ]


def test_a_name_stands_before_the_first_equals_sign() -> None:
    assert split_name("fast: ctx=1K") == ("fast", " ctx=1K")
    assert split_name("gpus=a:b") == (None, "gpus=a:b")
    assert split_name("plain") == (None, "plain")


def test_a_scenario_is_its_base_with_the_changes_on_top() -> None:
    found = scenario("x", BASE, {"max_latency": None, "ctx": "32K"})
    assert found.request is not None
    assert (found.request.ctx, found.request.max_latency, found.request.gpus) == (32_000, None, "8xA100")


def test_a_bad_scenario_keeps_all_its_problems_and_lets_the_others_be() -> None:
    bad, good, unread = read_sets(["slow:ctx=many,confidence=2,utilisation=0", "gpus=8xH100", "whatever"], BASE)
    assert good.request is not None
    assert good.name == "gpus=8xH100"
    assert bad.name == "slow"
    assert bad.request is None
    assert [text.split(":")[0] for text in bad.problems] == ["--ctx", "--utilisation", "--confidence"]
    assert unread.problems == ("--set whatever: 'whatever': no 'field=value'; write for example gpus=8xH100",)


def test_a_file_of_scenarios_takes_its_base_from_the_command_line_first() -> None:
    text = "base: {ctx: 128K, gpus: 8xA100}\nscenarios:\n  h100: {gpus: 8xH100}\n  few: {techniques: [kv_fp8, h2o]}\n"
    base, (h100, few) = read_scenarios(text, "s.yaml", {"ctx": "64K"})
    assert base == {"ctx": "64K", "gpus": "8xA100"}
    assert h100.request is not None
    assert (h100.request.ctx, h100.request.gpus) == (64_000, "8xH100")
    assert few.request is not None
    assert few.request.techniques == "kv_fp8,h2o"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scenarios: {}", "scenarios: holds no named scenario"),
        ("base: 3\nscenarios: {a: {ctx: 1K}}", "base: holds no 'field: value' lines"),
        ("variants: {a: {ctx: 1K}}\nscenarios: {b: x}", "variants: unknown"),
        ("scenarios: {b: x}", "scenarios.b: holds no"),
        ("- a", "holds no 'field: value' lines"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_scenarios(text, "s.yaml", {})


def test_two_scenarios_of_one_name_arent_told_apart() -> None:
    first, second = with_unique_names(read_sets(["a:ctx=1K", "a:ctx=2K"], BASE))
    assert first.request is not None
    assert "already" in second.problems[0]
