"""The rules of one scope: throughput's bounds, latencies, limits, the quality budget, the goal.

Each rule says what `planner.cost.session` says of the same thing; `planner.verify` checks the answer
without any of this.
"""

from __future__ import annotations

import math
from typing import Any

from planner.cost.links import both_ways_ratio
from planner.cost.quality import log_budget, z_score
from planner.solve.cpsat import Quantity, Term, Writer
from planner.solve.decisions import Decisions, Deployment
from planner.solve.goal import Goal, Limits
from planner.solve.laws import COARSE_BITS, LATENCY, STEP_BITS, TIME_BITS, Caches, Times

LOSS_BITS = 26
USERS_BITS = 22
"""Of a session's length where users are counted: a period and the length that it makes bound each other, and
propagation takes them to their limits unit by unit."""
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
        """How long a session occupies HBM between two rounds."""
        self.swap_in, self.swap_out = self.caches.copies()
        most = max(self.times.work.think_s, self.swap_in.most_value + self.swap_out.most_value, 1e-9)
        self.hold = self.writer.quantity("hold", most, most / 2**STEP_BITS)
        for p, literal in self.of.policy.items():
            if self.of.space.policies[p].policy == "none":
                self.times.be(self.hold, [], self.times.work.think_s, when=[literal])
            else:
                self.times.be(self.hold, [(1.0, self.swap_in), (1.0, self.swap_out)], when=[literal])

    def _pool(self) -> None:
        """The first prompt in another pool, and the way of its cache into this one."""
        split = {d: x for d, x in self.of.deployment.items() if d.pool >= 0}
        prompts = self.of.pool_prompts
        if not split:
            return
        most = max(float(p.kept[LATENCY]) for p, _ in prompts)
        self.pool_busy = self.writer.quantity("pool-busy", most, most / 2**TIME_BITS)
        self.pool_latency = self.writer.quantity("pool-latency", most, most / 2**TIME_BITS)
        self.times.table(self.pool_busy, [(float(p.kept[0]), x) for p, x in prompts])
        self.times.table(self.pool_latency, [(float(p.kept[LATENCY]), x) for p, x in prompts])
        sent = self.caches.largest("prompt", self.times.work.prompt_tokens, shared=True)
        self.sent = sent
        slowest = max(self.caches.seconds_per_byte(d)[0] for d in split) * sent.most_value
        self.transfer = self.writer.quantity("transfer", slowest, slowest / 2**TIME_BITS)
        for d, literal in split.items():
            self.times.be(self.transfer, [(self.caches.seconds_per_byte(d)[0], sent)], when=[literal])

    # ------------------------------------------------------------- latencies

    def _latencies(self) -> None:
        times, alone, pools = self.times, self.of.alone, self.of.pools
        split = any(d.pool >= 0 for d in self.of.deployment)
        most = times.latency.most_value + times.prompt_steps.most_value + 2 * times.step.most_value
        if split:
            most = max(most, self.pool_latency.most_value + self.transfer.most_value + times.step.most_value)
        self.ttft_cold = self._time("ttft-cold", most)
        self.times.be(self.ttft_cold, [(1.0, times.latency), (1.0, times.prompt_steps)], when=[~alone, ~pools])
        self.times.be(self.ttft_cold, [(1.0, times.latency)], when=[alone, ~pools])
        if split:
            parts: list[Term] = [(1.0, self.pool_latency), (1.0, self.transfer), (1.0, times.step)]
            self.times.be(self.ttft_cold, parts, when=[pools])
        self.tpot = self._time("tpot", times.step.most_value + times.largest.most_value)
        self.times.be(self.tpot, [(1.0, times.step), (1.0, times.largest)], when=[~alone])
        self.times.be(self.tpot, [(1.0, times.step)], when=[alone])
        self.wait = self._time("wait", max(self.ttft_cold.most_value, self.tpot.most_value))
        mixed: list[Term] = [(1.0, times.step), (1.0, times.largest)]
        self.times.be(self.wait, mixed, when=[self.of.throttled, ~pools])
        self.times.be(self.wait, [(1.0, self.ttft_cold)], when=[~self.of.throttled, ~pools])
        self.times.be(self.wait, mixed, when=[pools])
        question: list[Term] = [(1.0, self.swap_in), (1.0, times.later_latency)]
        most = self.swap_in.most_value + times.later_latency.most_value + times.later_steps.most_value
        self.ttft_warm = self._time("ttft-warm", most + self.wait.most_value)
        self.times.be(self.ttft_warm, question, when=[alone])
        self.times.be(self.ttft_warm, [*question, (1.0, self.wait), (1.0, times.later_steps)], when=[~alone])
        self.switch = self.caches.switch() if self.limits.switch_s or self.goal.name == "switch_s" else None

    def _time(self, name: str, most: float, bits: int = TIME_BITS) -> Quantity:
        return self.writer.quantity(name, most + 1e-9, (most + 1e-9) / 2**bits)

    # ------------------------------------------------------------- throughput

    def _throughput(self, known: float | None) -> None:
        """Seconds per session of one replica: the largest of what each resource takes."""
        self.period = self._time("period", self._slowest(known))
        writer, times, later, rho = self.writer, self.times, float(self.times.later), self.rho
        alone, pools = self.of.alone, self.of.pools
        for (u, m), literal in self.of.decode.items():
            b = float(m * self.of.table(u).pp)
            writer.at_least(self.period, [(b, times.busy), times.decode_s], times=rho * b, when=[literal, ~alone])
            self._resident(int(b), literal)
        start = [(times.latency, ~pools)]
        if any(d.pool >= 0 for d in self.of.deployment):
            start.append((self.transfer, pools))
        for quantity, literal in start:
            parts: list[Term] = [(1.0, quantity), times.decode_s, (later, self.hold), (later, times.later_latency)]
            writer.at_least(self.period, parts, times=rho, when=[alone, literal])
        if later:
            self._waiting_in_hbm()
        if self.caches.swaps:
            everything = self.caches.out_in_all()
            ratio = both_ways_ratio(times.setting)
            writer.at_least(self.period, [(later, self.swap_in)], times=rho)
            writer.at_least(self.period, [(1.0, everything)], times=rho, when=[self.of.swap])
            both: list[Term] = [(later / ratio, self.swap_in), (1.0 / ratio, everything)]
            writer.at_least(self.period, both, times=rho, when=[self.of.swap])
        for d, literal in self.of.deployment.items():
            if d.pool >= 0:
                share = d.pool_replicas / d.replicas
                writer.at_least(self.period, [(1.0, self.pool_busy)], times=rho * share, when=[literal])
                writer.at_least(
                    self.period, [(self.caches.seconds_per_byte(d)[1], self.sent)], times=rho, when=[literal]
                )

    def _resident(self, sequences: int, literal: Any) -> None:
        """Beside those that decode, one in prefill, and one between rounds where caches stay or swap."""
        model, resident = self.of.model, self.caches.resident
        between = self.times.later > 0
        least = 2 if sequences == 1 else sequences + 1
        model.add(resident >= least).only_enforce_if(literal, ~self.of.alone)
        if between:
            model.add(resident >= sequences + 2).only_enforce_if(literal, ~self.of.alone, ~self.of.recompute)

    def _waiting_in_hbm(self) -> None:
        """``period (N - b - 1) >= (R - 1) hold``: sessions between rounds share what decoding leaves."""
        model = self.of.model
        most = 1 << 18
        spare = model.new_int_var(0, most, "spare")
        for (u, m), literal in self.of.decode.items():
            b = m * self.of.table(u).pp
            model.add(spare <= self.caches.resident - b - 1).only_enforce_if(literal, ~self.of.alone)
        held = self.writer.product(
            "held", self.writer.rounded_down(self.period, COARSE_BITS), Quantity(spare, 1.0, most)
        )
        terms = [(float(self.times.later), self.hold)]
        self.writer.at_least(held, terms, when=[~self.of.alone, ~self.of.recompute])

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
        if any(d.pool >= 0 for d in deployments):
            ratio = max(d.replicas / d.pool_replicas for d in deployments if d.pool >= 0)
            parts += self.pool_busy.most_value * ratio + self.transfer.most_value
            parts += max(self.caches.seconds_per_byte(d)[1] for d in deployments if d.pool >= 0) * self.sent.most_value
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
        held = self.writer.product("tier", part, lasting, self.period.most_value)
        ratio = held.unit / self.period.unit
        left, right = (1, round(ratio)) if ratio >= 1.0 else (round(1.0 / ratio), 1)
        self.writer.add(left * self.period.variable >= right * held.variable, [self.of.swap])

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
            (self.tpot, limits.tpot_s),
            (self.ttft_cold, limits.ttft_cold_s),
            (self.ttft_warm, limits.ttft_warm_s),
            (self.switch, limits.switch_s),
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
