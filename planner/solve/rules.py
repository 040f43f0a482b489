"""The rules of one scope: throughput's bounds, latencies, limits, the quality budget, the goal.

Each rule says what `planner.cost.session` says of the same thing; `planner.verify` checks the answer
without any of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from planner.cost.links import both_ways_ratio
from planner.cost.quality import log_budget, z_score
from planner.solve.cpsat import Quantity, Term, Writer
from planner.solve.decisions import Decisions, Deployment
from planner.solve.goal import Goal, Limits
from planner.solve.laws import COARSE_BITS, MOST_RESIDENT, STEP_BITS, TIME_BITS, Caches, Times

LOSS_BITS = 26
USERS_BITS = 22
"""Of a session's length where users are counted: a period and the length that it makes bound each other, and
propagation takes them to their limits unit by unit."""
SPAN_BITS = 24
"""Of times that are compared with a product of a period and a number of sessions."""
KNOWN_MARGIN = 1e-4
"""Relative: how much worse than a known plan an objective in integers may look."""


class Rules:
    """Writes the rules of a scope and knows the quantity that is minimised."""

    def __init__(self, decisions: Decisions, goal: Goal, limits: Limits, known: float | None) -> None:
        self.of = decisions
        self.goal = goal
        self.limits = limits
        self.writer = Writer(decisions.model)
        self.times = Times(decisions, self.writer, exact=limits.users is not None)
        self.caches = Caches(self.times)
        self.request = decisions.search.problem.request
        self.rho = self.times.setting.efficiency.gpu_utilisation
        self.split = {d: x for d, x in decisions.deployment.items() if d.pool >= 0}
        """Deployments with two pools."""
        self._hold()
        self._pool()
        self._latencies()
        self._throughput(known)
        self._tier_and_users()
        self._quality()
        self._limit()
        self.objective = self._objective(known)
        decisions.model.minimize(self.objective.variable)

    # ------------------------------------------------------------- between rounds, between pools

    def _hold(self) -> None:
        """How long a session occupies HBM between two rounds; a prefill pool's also while another decodes it."""
        self.swap_in, self.swap_out = self.caches.copies()
        think, answer = self.times.work.think_s, float(self.times.work.output_tokens)
        kept = think + (answer * self.times.step.most_value if self.split else 0.0)
        most = max(kept, self.swap_in.most_value + self.swap_out.most_value, 1e-9)
        self.hold = self.writer.quantity("hold", most, most / 2**STEP_BITS)
        for p, literal in self.of.policy.items():
            if self.of.space.policies[p].policy != "none":
                self.times.be(self.hold, [(1.0, self.swap_in), (1.0, self.swap_out)], when=[literal])
            elif self.split:
                self.times.be(self.hold, [], think, when=[literal, ~self.of.pools])
                self.times.be(self.hold, [(answer, self.times.step)], think, when=[literal, self.of.pools])
            else:
                self.times.be(self.hold, [], think, when=[literal])

    def _pool(self) -> None:
        """Prefills in another pool, and the way of their caches into this one."""
        if not self.split:
            return
        prompts, times, later, caches = self.of.pool_prompts, self.times, float(self.times.later), self.caches
        found = times.prefills("pool-", prompts)
        self.pool_busy, self.pool_latency, self.pool_largest, self.pool_later = found
        sent = caches.largest("prompt", times.work.prompt_tokens, shared=True, decodes=True)
        again = caches.largest("later-prompt", times.work.later_prompt_tokens, shared=True, decodes=True)
        self.sent: list[Term] = [(1.0, sent), (later, again)]
        self.transfer, self.later_transfer = self._transfer("transfer", sent), self._transfer("later-transfer", again)
        self.moved: list[Term] = [(1.0, self.transfer), (later, self.later_transfer)]

    def _transfer(self, name: str, sent: Quantity) -> Quantity:
        """How long a cache takes from a prefill pool to the decode pool [s]."""
        slowest = max(self.caches.seconds_per_byte(d)[0] for d in self.split) * sent.most_value
        found = self.writer.quantity(name, slowest, slowest / 2**TIME_BITS)
        for d, literal in self.split.items():
            self.times.be(found, [(self.caches.seconds_per_byte(d)[0], sent)], when=[literal])
        return found

    # ------------------------------------------------------------- latencies

    def _latencies(self) -> None:
        times, alone, here = self.times, self.of.alone, [~self.of.pools] if self.split else []
        cold: list[Term] = [(1.0, times.latency), (1.0, times.prompt_steps)]
        question: list[Term] = [(1.0, self.swap_in), (1.0, times.later_latency)]
        handed: list[Term] = []
        asked: list[Term] = []
        if self.split:
            handed = [(1.0, self.pool_latency), (1.0, self.transfer), (1.0, times.step)]
            asked = [(1.0, self.swap_in), (1.0, self.pool_later), (1.0, self.later_transfer), (1.0, times.step)]
        self.ttft_cold = self._time("ttft-cold", max(_most(cold), _most(handed)))
        times.be(self.ttft_cold, cold, when=[~alone, *here])
        times.be(self.ttft_cold, cold[:1], when=[alone, *here])
        self.tpot = self._time("tpot", times.step.most_value + times.largest.most_value)
        mixed: list[Term] = [(1.0, times.step), (1.0, times.largest)]
        times.be(self.tpot, mixed, when=[~alone])
        times.be(self.tpot, mixed[:1], when=[alone])
        self.wait = self._time("wait", max(self.ttft_cold.most_value, self.tpot.most_value))
        times.be(self.wait, mixed, when=[self.of.throttled, *here])
        times.be(self.wait, [(1.0, self.ttft_cold)], when=[~self.of.throttled, *here])
        queued: list[Term] = [(1.0, self.wait), (1.0, times.later_steps)]
        self.ttft_warm = self._time("ttft-warm", max(_most([*question, *queued]), _most([*asked, *queued])))
        times.be(self.ttft_warm, question, when=[alone, *here])
        times.be(self.ttft_warm, [*question, *queued], when=[~alone, *here])
        if self.split:
            apart = self.of.pools
            times.be(self.ttft_cold, handed, when=[apart])
            times.be(self.wait, [(1.0, self.pool_largest)], when=[self.of.throttled, apart])
            times.be(self.wait, [(1.0, self.pool_latency)], when=[~self.of.throttled, apart])
            times.be(self.ttft_warm, [*asked, (1.0, self.wait)], when=[apart])
        self.switch = self.caches.switch() if self.limits.most("switch_s") or self.goal.name == "switch_s" else None

    def _time(self, name: str, most: float, bits: int = TIME_BITS) -> Quantity:
        return self.writer.quantity(name, most + 1e-9, (most + 1e-9) / 2**bits)

    # ------------------------------------------------------------- throughput

    def _throughput(self, known: float | None) -> None:
        """Seconds per session of one replica: the largest of what each resource takes."""
        self.period = self._time("period", self._slowest(known))
        writer, times, later, rho = self.writer, self.times, float(self.times.later), self.rho
        alone, here = self.of.alone, [~self.of.pools] if self.split else []
        for (u, m), literal in self.of.decode.items():
            b = float(m * self.of.table(u).pp)
            writer.at_least(self.period, [(b, times.busy), times.decode_s], times=rho * b, when=[literal, ~alone])
            self._resident(int(b), literal)
        parts: list[Term] = [(1.0, times.latency), times.decode_s, (later, self.hold), (later, times.later_latency)]
        writer.at_least(self.period, parts, times=rho, when=[alone, *here])
        if later:
            self._waiting_in_hbm(here)
        if self.caches.swaps:
            self._copying(here)
        if self.split:
            self._between_pools()

    def _copying(self, here: list[Any]) -> None:
        """PCIe moves caches in and out, each way and both together, where caches wait."""
        everything, later, swap = self.caches.out_in_all(), float(self.times.later), self.of.swap
        ratio = both_ways_ratio(self.times.setting)
        both: list[Term] = [(later / ratio, self.swap_in), (1.0 / ratio, everything)]
        places = [(1.0, here)] + [(d.ratio, [literal]) for d, literal in self.split.items()]
        for replicas, when in places:
            rate = self.rho * replicas
            self.writer.at_least(self.period, [(later, self.swap_in)], times=rate, when=when)
            self.writer.at_least(self.period, [(1.0, everything)], times=rate, when=[swap, *when])
            self.writer.at_least(self.period, both, times=rate, when=[swap, *when])

    def _between_pools(self) -> None:
        """What prefill pools, the link and both pools' HBM leave of throughput."""
        writer, later, rho, model = self.writer, float(self.times.later), self.rho, self.of.model
        alone, apart, pool_resident = self.of.alone, self.of.pools, self.caches.pool_resident
        arrivals = self._arrivals()
        for arriving_s, when in arrivals:
            writer.at_least(self.period, [*arriving_s, self.times.decode_s], times=rho, when=[alone, apart, *when])
        arriving = model.new_int_var(0, MOST_RESIDENT, "arriving")
        for (u, m), literal in self.of.decode.items():
            sequences = m * self.of.table(u).pp
            model.add(arriving <= self.caches.resident - sequences).only_enforce_if(literal, ~alone, apart)
        period = writer.rounded_down(self.period, COARSE_BITS)
        received = writer.product("received", period, Quantity(arriving, 1.0, MOST_RESIDENT))
        for arriving_s, when in arrivals:
            arrives = writer.rounded_up("arrives", arriving_s, _most(arriving_s) / 2**SPAN_BITS)
            writer.at_least(received, [(1.0, arrives)], when=[~alone, apart, *when])
        held = writer.product("held-apart", period, Quantity(pool_resident, 1.0, MOST_RESIDENT))
        waits: list[Term] = [(1.0 / rho, self.pool_latency), (later / rho, self.pool_later), (later, self.hold)]
        waits += self.moved
        waiting = writer.rounded_up("waiting", waits, _most(waits) / 2**SPAN_BITS)
        for d, literal in self.split.items():
            writer.at_least(self.period, [(1.0, self.pool_busy)], times=rho * d.ratio, when=[literal])
            each = self.caches.seconds_per_byte(d)[1]
            writer.at_least(self.period, [(each * c, q) for c, q in self.sent], times=rho, when=[literal])
            writer.at_least(held, [(1.0, waiting)], times=d.ratio, when=[literal])

    def _arrivals(self) -> list[tuple[list[Term], list[Any]]]:
        """How long a session's prompts take room in a decode pool before they are decoded, and for which engines."""
        reserving = [x for u, x in self.of.unit.items() if self.of.table(u).setting.efficiency.decode_reserves]
        if not reserving:
            return [(self.moved, [])]
        kept = self.of.any_of("decode-reserves", reserving)
        later, rounds = float(self.times.later), float(self.times.work.rounds)
        prompts: list[Term] = [(1.0, self.ttft_cold), (later, self.ttft_warm), (-rounds, self.times.step)]
        return [(prompts, [kept]), (self.moved, [~kept])]

    def _resident(self, sequences: int, literal: Any) -> None:
        """Beside those that decode, one in prefill, and one between rounds where caches stay or swap."""
        model, resident = self.of.model, self.caches.resident
        between = self.times.later > 0
        least = 2 if sequences == 1 else sequences + 1
        model.add(resident >= least).only_enforce_if(literal, ~self.of.alone)
        if between:
            here = [~self.of.pools] if self.split else []
            model.add(resident >= sequences + 2).only_enforce_if(literal, ~self.of.alone, ~self.of.recompute, *here)

    def _waiting_in_hbm(self, here: list[Any]) -> None:
        """``period (N - b - 1) >= (R - 1) hold``: sessions between rounds share what decoding leaves."""
        model = self.of.model
        spare = model.new_int_var(0, MOST_RESIDENT, "spare")
        for (u, m), literal in self.of.decode.items():
            b = m * self.of.table(u).pp
            model.add(spare <= self.caches.resident - b - 1).only_enforce_if(literal, ~self.of.alone)
        held = self.writer.product(
            "held", self.writer.rounded_down(self.period, COARSE_BITS), Quantity(spare, 1.0, MOST_RESIDENT)
        )
        terms = [(float(self.times.later), self.hold)]
        self.writer.at_least(held, terms, when=[~self.of.alone, ~self.of.recompute, *here])

    def _slowest(self, known: float | None) -> float:
        """A period that no plan of interest exceeds [s]."""
        deployments = list(self.of.deployment)
        if known is not None and self.goal.name in ("throughput", "cost"):
            per_hour = known * 3600.0 * self.request.rounds * (1.0 + KNOWN_MARGIN)
            if self.goal.name == "throughput":
                return per_hour * max(d.replicas for d in deployments)
            return per_hour * max(d.replicas / self.gpus(d) for d in deployments)
        times, later = self.times, self.times.later
        parts = times.busy.most_value + times.decode_s[0] * times.step.most_value + times.latency.most_value
        parts += later * (self.hold.most_value + times.later_latency.most_value + 2 * self.swap_out.most_value)
        if self.split:
            apart = self.pool_busy.most_value + self.ttft_cold.most_value + later * self.ttft_warm.most_value
            apart += max(self.caches.seconds_per_byte(d)[1] for d in self.split) * _most(self.sent)
            parts = (parts + apart + _most(self.moved)) * max(1.0, *(1.0 / d.ratio for d in self.split))
        return 2.0 * parts / self.rho

    def gpus(self, d: Deployment) -> int:
        """GPUs that a deployment takes."""
        pool = self.of.table(d.pool).gpus * d.pool_replicas if d.pool >= 0 else 0
        return self.of.table(d.unit).gpus * d.replicas + pool

    # ------------------------------------------------------------- sessions in a tier, users

    def _tier_and_users(self) -> None:
        """How long a session lasts: what the offload tier holds for so long, and how many users that makes."""
        if not self.caches.swaps and self.limits.users is None:
            return
        self.lasting = self._lasting(float(self.times.later))
        if self.caches.swaps:
            self._in_tier()
        if self.limits.users is not None:
            for d, literal in self.of.deployment.items():
                need = self.limits.users / d.replicas
                self.writer.at_least(self.lasting, [(need, self.period)], when=[literal])

    def _in_tier(self) -> None:
        """``period >= share of the tier that a session takes * how long it takes it``."""
        share = self.caches.tier_share()
        # Units whose product is a power of two times the period's, so that no coefficient is rounded; and
        # no less than a millionth of the period's, so that coefficients stay small.
        length = max(0, math.ceil(math.log2(self.lasting.most_value / self.period.unit)) - COARSE_BITS)
        unit = 2.0 ** max(math.ceil(math.log2(share.most_value)) - COARSE_BITS, -20 - length)
        part = self.writer.rounded_up("tier-share~", [(1.0, share)], unit)
        lasting = self.writer.rounded_up("lasting~", [(1.0, self.lasting)], self.period.unit * 2.0**length)
        most = self.period.most_value * max(1.0, *(d.ratio for d in self.of.deployment))
        held = self.writer.product("tier", part, lasting, most)
        ratio = held.unit / self.period.unit
        left, right = (1, round(ratio)) if ratio >= 1.0 else (round(1.0 / ratio), 1)
        here = [~self.of.pools] if self.split else []
        self.writer.add(left * self.period.variable >= right * held.variable, [self.of.swap, *here])
        for d, literal in self.split.items():
            several = left * d.pool_replicas * self.period.variable
            self.writer.add(several >= right * d.replicas * held.variable, [self.of.swap, literal])

    def _lasting(self, later: float) -> Quantity:
        """``waiting + decode T / (T - busy)``: a session's length while others are prefilled in between [s]."""
        times, writer, alone = self.times, self.writer, self.of.alone
        bits, coarse = (TIME_BITS, COARSE_BITS) if self.limits.users is None else (USERS_BITS, USERS_BITS)
        decode, step = times.decode_s
        between = self._time("between", times.busy.most_value, bits)
        times.be(between, [(1.0, times.busy)], when=[~alone])
        times.be(between, [], when=[alone])
        gap = self._time("gap", self.period.most_value, bits)
        writer.add(gap.variable >= 1)
        writer.at_most(gap, [(1.0, self.period), (-1.0, between)])
        if times.exact:
            writer.at_least(gap, [(1.0, self.period), (-1.0, between)])
        # A step is mixed at worst: extra = min(decode busy / (T - busy), decode chunk).
        waiting_most = self.ttft_cold.most_value + later * (times.work.think_s + self.ttft_warm.most_value)
        tokens = float(times.work.rounds * times.work.output_tokens)
        extra = self._time("extra", tokens * times.largest.most_value * 1.001, bits)
        worst = writer.model.new_bool_var("always-mixed")
        writer.at_least(extra, [(tokens, times.largest)], when=[worst, ~alone])
        unit = max(extra.most_value, decode * step.most_value) / 2**coarse
        span = self.period.most_value / 2**coarse
        more, slow = (
            writer.rounded_up(f"{n}~", t, unit) for n, t in (("extra", [(1.0, extra)]), ("decode", [(decode, step)]))
        )
        free, taken = (writer.rounded_up(f"{n}~", [(1.0, q)], span) for n, q in (("gap", gap), ("between", between)))
        left, right = writer.product("extra-gap", more, free), writer.product("decode-busy", slow, taken)
        writer.add(left.variable >= right.variable, [~worst, ~alone])
        if times.exact:
            writer.at_most(extra, [(tokens, times.largest)])
            writer.add(extra.variable == 0, [alone])
            # One unit less of the extra time would be too little.
            writer.add(left.variable <= right.variable + free.variable)
        lasting = self._time("lasting", waiting_most + decode * step.most_value + extra.most_value, bits)
        terms: list[Term] = [(1.0, self.ttft_cold), (later, self.ttft_warm), (decode, step), (1.0, extra)]
        times.be(lasting, terms, later * times.work.think_s)
        return lasting

    # ------------------------------------------------------------- quality

    def _quality(self) -> None:
        """The chance constraint: mean plus z standard deviations of the stacked losses, within the budget."""
        model, space = self.of.model, self.of.space
        losses = [(option.loss, literal) for _, _, option, literal in self.of.options()]
        losses += [(space.weights[w].loss, literal) for w, literal in self.of.weights.items()]
        named = self.of.named()
        for extra in space.compatibility.surcharges:
            sides = [[named[name] for name in sorted(side) if name in named] for side in (extra.a, extra.b)]
            if sides[0] and sides[1]:
                both = model.new_bool_var(f"surcharge:{extra.rule}")
                for x in sides[0]:
                    for y in sides[1]:
                        if x is not y:
                            model.add_bool_or(~x, ~y, both)
                losses.append((extra.loss, both))
        losses = [(loss, literal) for loss, literal in losses if loss.mean or loss.variance]
        mean_most = sum(loss.mean for loss, _ in losses) + 1e-9
        variance_most = sum(loss.variance for loss, _ in losses) + 1e-9
        z = z_score(self.request.confidence)
        self.loss_mean = self.writer.quantity("loss-mean", mean_most, mean_most / 2**LOSS_BITS)
        self.times.table(self.loss_mean, [(loss.mean, x) for loss, x in losses])
        spread_most = math.sqrt(variance_most)
        spread = self.writer.quantity("loss-spread", spread_most, spread_most / 2**LOSS_BITS)
        square = self.writer.product("loss-variance", spread, spread)
        total = sum(self.writer.up(loss.variance, square) * x for loss, x in losses)
        self.writer.add(square.variable >= total)
        self.loss = self.writer.quantity(
            "loss", mean_most + z * spread_most, (mean_most + z * spread_most) / 2**LOSS_BITS
        )
        self.writer.at_least(self.loss, [(1.0, self.loss_mean), (z, spread)])
        budget = log_budget(self.request.max_quality_loss)
        self.writer.limit(self.loss_mean, budget)
        self.writer.limit(self.loss, budget)

    # ------------------------------------------------------------- limits and the goal

    def _limit(self) -> None:
        limits = self.limits
        pairs = (
            (self.tpot, limits.most("tpot_s")),
            (self.ttft_cold, limits.most("ttft_cold_s")),
            (self.ttft_warm, limits.most("ttft_warm_s")),
            (self.switch, limits.most("switch_s")),
        )
        for quantity, most in pairs:
            if quantity is not None and most is not None:
                self.writer.limit(quantity, most)

    def _objective(self, known: float | None) -> Quantity:
        name = self.goal.name
        if name in ("throughput", "cost"):
            return self._per_session(name, known)
        if name == "latency":
            answer = float(self.goal.output_tokens - 1)
            found = self._time("latency", self.ttft_warm.most_value + answer * self.tpot.most_value)
            self.writer.at_least(found, [(1.0, self.ttft_warm), (answer, self.tpot)])
            return found
        if name == "quality":
            return self.loss
        direct = {"tpot_s": self.tpot, "ttft_cold_s": self.ttft_cold, "ttft_warm_s": self.ttft_warm}
        chosen = direct.get(name, self.switch)
        if chosen is None:
            raise ValueError(f"nothing to minimise for the goal {name}")
        return chosen

    def _per_session(self, name: str, known: float | None) -> Quantity:
        """Seconds between two sessions of the cluster, or the GPU-seconds that one takes."""
        weight = {d: float(self.gpus(d)) if name == "cost" else 1.0 for d in self.of.deployment}
        most = max(self.period.most_value * w / d.replicas for d, w in weight.items())
        if known is not None:
            most = min(most, known * 3600.0 * self.request.rounds * (1.0 + KNOWN_MARGIN))
        found = self._time("per-session", most)
        for d, literal in self.of.deployment.items():
            self.writer.at_least(found, [(weight[d] / d.replicas, self.period)], when=[literal])
        return found


def _most(terms: Sequence[Term]) -> float:
    """Upper bound of a sum."""
    return sum(c * q.most_value for c, q in terms)
