"""What the catalog says of techniques and rules is complete, sourced and free of contradictions."""

from __future__ import annotations

import fnmatch
import itertools
from functools import cache

import pytest

from catalog.load import Catalog, open_catalog
from catalog.schema import Engine, Evidence, Hardware, Linear, Model, Point, Rule, Selector, Technique

SHORTLIST = {
    "layer": "layer_none kvsharer_12 xkv4_2p5x xkv4_8x simlayerkv swa_5_1 linear_hybrid cla2 yoco",
    "head": "head_none gqa8 duo_50 duo_25_mha razor_30 adakv_snap_1024 headkv_1024 kvzip_head_60",
    "token": "token_none streamingllm_2048 h2o_20 snapkv_1024 snapkv_2048 snapkv_4096 snapkv_50_agnostic "
    "pyramidkv_2048 ea_50 keydiff_50 kvzip_50 kvzip_30 fastkvzip_30 kvzap_33 kvcompress_cr4 rocketkv_2048 "
    "dms_4x dms_8x",
    "hidden": "kv_bf16 kv_fp8_e4m3 kv_fp8_e5m2 kv_int8_pth kv_int4_pth kivi4 kivi2 tq_k8v4 tq_4bit_nc tq_3bit_nc "
    "kv_nvfp4 lcpp_q8_0 think_40 mla",
    "attention": "attn_dense quest_1024 quest_4096 minference trianglemix lserve_4096 lserve_8192",
    "weights": "w_bf16 w_fp8 w_int8_w8a8 w_awq4 w_nf4 w_qserve_w4a8",
    "offload": "off_none off_vllm_cpu off_lmcache off_hicache off_cachegen off_shadowkv",
}
"""The 68 options that the field survey of November 2026 recommends to offer."""

NEUTRAL = ("layer_none", "head_none", "token_none", "kv_bf16", "attn_dense", "w_bf16", "off_none")

UNORDERED = {
    "h2o": "the stronger point was measured on easier benchmarks",
    "palu": "the two points were measured on different models and benchmarks",
}
"""Curves on which more compression doesn't mean more loss, because their points can't be compared."""

STORES_METADATA = {"quest_1024", "quest_4096", "dsa"}
LOWER_IS_BETTER = ("ppl", "perplexity")
TOKENS = 128_000


@cache
def facts() -> Catalog:
    return open_catalog()


def points() -> list[tuple[Technique, Point]]:
    return [(technique, point) for technique in facts().all(Technique) for point in technique.points]


def rules() -> list[Rule]:
    return facts().all(Rule)


def kept(effect: Linear, tokens: int = TOKENS) -> float:
    return min(max(effect.slope, 1.0), effect.slope + effect.const_tokens / tokens)


def speaks_of(selector: Selector, technique: Technique, point: Point) -> bool:
    """A selector's words on techniques, for one option. Words on surroundings are left out."""
    said = [
        technique.dimension in selector.dimensions if selector.dimensions else None,
        technique.id in selector.techniques if selector.techniques else None,
        point.id in selector.points if selector.points else None,
        *(
            getattr(technique, flag) == getattr(selector, flag) if getattr(selector, flag) is not None else None
            for flag in ("evicts_tokens", "query_aware", "per_head_budgets", "prefix_cache_safe")
        ),
    ]
    stated = [answer for answer in said if answer is not None]
    return bool(stated) and all(stated)


@cache
def clashing_pairs() -> dict[str, set[tuple[str, str]]]:
    """Rule -> ordered pairs of points of different techniques to which it applies, surroundings aside."""
    pairs = {}
    for rule in rules():
        firsts = [(technique.id, point.id) for technique, point in points() if speaks_of(rule.a, technique, point)]
        seconds = [(technique.id, point.id) for technique, point in points() if speaks_of(rule.b, technique, point)]
        pairs[rule.id] = {(p, q) for (t, p), (u, q) in itertools.product(firsts, seconds) if t != u}
    return pairs


def applying(one: str, other: str) -> list[Rule]:
    """Rules for two options, in either order."""
    return [rule for rule in rules() if {(one, other), (other, one)} & clashing_pairs()[rule.id]]


def exclusive(one: str, other: str) -> bool:
    return any(rule.verdict == "exclusive" for rule in applying(one, other))


# ---------------------------------------------------------------------- completeness


def test_every_recommended_option_is_there_and_only_those_are_marked() -> None:
    wanted = {(dimension, name) for dimension, names in SHORTLIST.items() for name in names.split()}
    assert len(wanted) == 68
    assert {(technique.dimension, point.id) for technique, point in points() if point.shortlisted} == wanted


def test_ids_of_points_are_unique() -> None:
    ids = [point.id for _, point in points()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", NEUTRAL)
def test_doing_nothing_costs_and_saves_nothing(name: str) -> None:
    technique, point = facts().point(name)
    assert (point.storage.slope, point.reads.slope, point.weight_bytes) == (1.0, 1.0, 1.0)
    assert (point.prefill.linear, point.prefill.attention, point.overhead) == (1.0, 1.0, None)
    assert point.prior is not None
    assert (point.prior.mean_pct, point.prior.std_pct, point.prior.confidence) == (0.0, 0.0, "exact")
    assert technique.prefix_cache_safe
    assert not technique.evicts_tokens


# ---------------------------------------------------------------------- curves


def test_ratios_are_in_range() -> None:
    for technique, point in points():
        ceiling = 1.2 if point.id in STORES_METADATA else 1.0
        for effect in (point.storage, point.reads):
            assert 0.0 < kept(effect) <= ceiling, (technique.id, point.id)
        assert 0.0 < point.weight_bytes <= 1.0, point.id
        assert point.weight_bytes == 1.0 or technique.dimension == "weights", point.id


def unordered(technique: Technique) -> bool:
    sizes = {p.id: kept(p.storage) * kept(p.reads) * p.weight_bytes for p in technique.points}
    for weaker, stronger in itertools.permutations(technique.points, 2):
        if weaker.prior is None or stronger.prior is None or sizes[stronger.id] >= sizes[weaker.id]:
            continue
        if stronger.prior.mean_pct < weaker.prior.mean_pct:
            return True
    return False


def test_more_compression_never_loses_less_within_a_curve() -> None:
    found = {technique.id for technique in facts().all(Technique) if unordered(technique)}
    assert found == set(UNORDERED)


def test_strengths_tell_the_points_of_a_curve_apart() -> None:
    for technique in facts().all(Technique):
        if len(technique.points) > 1:
            strengths = [point.strength for point in technique.points]
            assert None not in strengths, technique.id
            assert len(set(strengths)) == len(strengths), technique.id
            assert technique.strength_means, technique.id


def test_a_strength_finds_its_point() -> None:
    assert facts().point("snapkv:2048")[1].id == "snapkv_2048"
    assert facts().point("quest:1024")[1].id == "quest_1024"
    assert facts().point("kvzip:0.3")[1].id == "kvzip_30"


# ---------------------------------------------------------------------- priors and evidence


def test_exact_priors_are_exact_and_others_have_a_spread() -> None:
    for technique, point in points():
        assert point.prior is not None, point.id
        exact = point.prior.confidence == "exact"
        assert exact == (point.prior.std_pct == 0.0), point.id
        assert exact or not technique.requires_native_model or technique.training.startswith("pretrain"), point.id
        assert point.prior.how.strip(), point.id


def test_a_prior_says_up_to_which_context_it_was_measured() -> None:
    lossless_at_any_length = {"layerskip_ssd"}
    for _, point in points():
        assert point.prior is not None
        unlimited = point.prior.confidence == "exact" or point.id in lossless_at_any_length
        assert (point.prior.context_tokens is None) == unlimited, point.id


def test_reusing_a_question_aware_cache_costs_more_than_using_it_once() -> None:
    for technique, point in points():
        assert point.prior is not None
        tasks = point.prior.by_task
        if technique.query_aware and "multiturn" in tasks:
            assert tasks["multiturn"].mean_pct > tasks["qa"].mean_pct + tasks["qa"].std_pct, point.id
            assert tasks["multiturn"].mean_pct > point.prior.mean_pct, point.id


def evidence() -> list[tuple[Point, Evidence]]:
    return [(point, row) for _, point in points() for row in point.evidence]


def test_losses_follow_from_the_figures() -> None:
    for point, row in evidence():
        if row.baseline is None or row.compressed is None or row.rel_loss_pct is None:
            continue
        loss = 100.0 * (row.baseline - row.compressed) / row.baseline
        if any(word in row.benchmark for word in LOWER_IS_BETTER):
            loss = -loss
        assert row.rel_loss_pct == pytest.approx(loss, abs=0.011), (point.id, row.benchmark, row.model)


def test_nothing_recalled_carries_a_prior() -> None:
    assert [(p.id, row.benchmark) for p, row in evidence() if row.provenance == "recalled" and row.used_in_prior] == []


def test_evidence_and_entries_name_their_sources() -> None:
    for technique in facts().all(Technique):
        named = {source.ref for source in technique.sources}
        for point in technique.points:
            assert {row.source for row in point.evidence} <= named, point.id
            if point.overhead:
                assert point.overhead.source in named, point.id


def test_measured_overheads_cost_time() -> None:
    for _, point in points():
        if point.overhead:
            factors = [f for f in (point.overhead.decode, point.overhead.prefill) if f is not None]
            assert factors, point.id
            assert min(factors) >= 1.0, point.id


# ---------------------------------------------------------------------- flags


def test_what_depends_on_the_question_is_not_reusable() -> None:
    for technique in facts().all(Technique):
        if technique.query_aware:
            assert not technique.prefix_cache_safe, technique.id
        if technique.evicts_while_decoding:
            assert technique.evicts_tokens, technique.id


def test_all_token_techniques_but_none_evict() -> None:
    for technique in facts().all(Technique):
        if technique.dimension == "token":
            assert technique.evicts_tokens == (technique.id != "token_none"), technique.id


# ---------------------------------------------------------------------- engines


def engines() -> dict[str, Engine]:
    return {engine.id: engine for engine in facts().all(Engine)}


def test_engines_exist() -> None:
    known = engines()
    if not known:
        pytest.skip("this checkout has no engines")
    for technique in facts().all(Technique):
        own = {point.id for point in technique.points}
        for support in technique.engines:
            assert support.engine in known, technique.id
            assert set(support.points) <= own, technique.id
            assert set(support.compute_capabilities) <= set(known[support.engine].compute_capabilities), technique.id


def test_shipped_formats_agree_with_the_engine_that_ships_them() -> None:
    for engine in engines().values():
        takes = [(kv.technique_point, kv.compute_capabilities) for kv in engine.kv_formats]
        takes += [(weight.technique_point, weight.compute_capabilities) for weight in engine.weight_formats]
        formats: dict[str, set[str]] = {}
        for name, capabilities in takes:
            formats.setdefault(facts().point(name)[1].id, set()).update(capabilities)
        for technique, point in points():
            for support in technique.engines:
                said = support.engine == engine.id and (not support.points or point.id in support.points)
                if said and support.status == "ships" and point.id in formats:
                    wanted = set(support.compute_capabilities or engine.compute_capabilities)
                    assert wanted <= formats[point.id], (engine.id, point.id, wanted - formats[point.id])


def test_fp8_kv_on_an_a100_goes_through_flashinfer() -> None:
    technique, _ = facts().point("kv_fp8_e4m3")
    settings = [s.setting or "" for s in technique.engines if s.engine == "vllm" and "8.0" in s.compute_capabilities]
    assert settings
    assert all("FLASHINFER" in setting for setting in settings)


def test_presses_that_only_mask_do_not_count_as_shipped() -> None:
    masking = {"duoattention", "duoattention_mha", "adakv_snapkv", "adakv_expected_attention", "kvzip", "fastkvzip"}
    for name in (*masking, "kvzap", "think"):
        technique = facts().get(Technique, name)
        (press,) = [support for support in technique.engines if support.engine == "transformers-kvpress"]
        assert press.status == "experimental", name
        assert "saves no memory" in (press.note or ""), name


# ---------------------------------------------------------------------- rules


def test_selectors_name_what_exists() -> None:
    techniques = {technique.id for technique in facts().all(Technique)}
    ids = {point.id for _, point in points()}
    generations = {hardware.generation for hardware in facts().all(Hardware)}
    models = [model.id for model in facts().all(Model)]
    for rule in rules():
        for selector in (rule.a, rule.b):
            assert set(selector.techniques) <= techniques, rule.id
            assert set(selector.points) <= ids, rule.id
            assert set(selector.hardware_generations) <= generations, rule.id
            if engines():
                assert set(selector.engines) <= set(engines()), rule.id
            if models and selector.models:
                assert any(fnmatch.fnmatch(model, pattern) for model in models for pattern in selector.models), rule.id


def test_all_rules_of_the_survey_are_there() -> None:
    named = {alias.partition("-")[0] for rule in rules() for alias in rule.aliases}
    assert named == {f"R{number}" for number in range(1, 29)}


def speaks_of_techniques(selector: Selector) -> bool:
    return any(speaks_of(selector, technique, point) for technique, point in points())


def test_rules_between_techniques_bite_and_spare_the_neutral_options() -> None:
    for rule in rules():
        if rule.verdict in {"exclusive", "bundle"} and speaks_of_techniques(rule.a) and speaks_of_techniques(rule.b):
            pairs = clashing_pairs()[rule.id]
            assert pairs, rule.id
            assert not {name for pair in pairs for name in pair} & set(NEUTRAL), rule.id


def test_a_rule_reads_the_same_from_both_sides() -> None:
    for rule in rules():
        if rule.verdict != "exclusive":
            continue
        pairs = clashing_pairs()[rule.id]
        overlap = {one for one, _ in pairs} & {other for _, other in pairs}
        # Where an option is on both sides, the rule must forbid it with the same partners from either.
        for name in overlap:
            assert {b for a, b in pairs if a == name} == {a for a, b in pairs if b == name}, (rule.id, name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("snapkv_2048", "kvzip_30"),
        ("snapkv_2048", "adakv_snap_1024"),
        ("kivi2", "snapkv_1024"),
        ("quest_1024", "kvzip_50"),
        ("lserve_4096", "duo_50"),
        ("lserve_4096", "snapkv_4096"),
        ("xkv4_8x", "off_shadowkv"),
        ("palu_2p5", "xkv4_8x"),
        ("transmla", "duo_50"),
        ("kvzip_head_60", "kvzip_50"),
        ("off_shadowkv", "ea_50"),
    ],
)
def test_pairs_that_exclude_each_other(one: str, other: str) -> None:
    assert exclusive(one, other)
    assert exclusive(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kv_int8_pth", "snapkv_2048"),
        ("kv_int4_pth", "kvzip_30"),
        ("duo_50", "kv_int8_pth"),
        ("duo_50", "snapkv_2048"),
        ("minference", "kvzip_30"),
        ("mla", "xkv4_8x"),
        ("w_awq4", "kv_int4_pth"),
        ("kv_fp8_e4m3", "off_vllm_cpu"),
    ],
)
def test_pairs_that_may_be_stacked(one: str, other: str) -> None:
    assert not exclusive(one, other)


def surcharge(one: str, other: str) -> list[tuple[float, float]]:
    return [(rule.surcharge.mean_pct, rule.surcharge.std_pct) for rule in applying(one, other) if rule.surcharge]


def test_stacked_losses_carry_their_surcharge() -> None:
    assert surcharge("kv_int4_pth", "snapkv_2048") == [(1.0, 1.5)]
    assert surcharge("snapkv_2048", "duo_50") == [(2.0, 3.0)]
    assert surcharge("w_awq4", "kv_int4_pth") == [(1.0, 1.5)]
    assert surcharge("kv_int8_pth", "snapkv_2048") == []
    assert surcharge("w_awq4", "kv_int8_pth") == []


def test_surcharges_admit_to_be_judgement() -> None:
    for rule in rules():
        if rule.surcharge:
            assert "judgement" in rule.why, rule.id
            assert any(source.provenance == "derived" for source in rule.sources), rule.id


def test_a_question_aware_cache_serves_no_other_request_and_warns_of_later_rounds() -> None:
    by_feature = {feature: rule.verdict for rule in rules() if rule.a.query_aware for feature in rule.b.features}
    assert by_feature == {"prefix_reuse": "exclusive", "multiple_rounds": "caution"}
