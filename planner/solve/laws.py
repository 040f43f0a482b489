"""What decisions cost, as quantities: the laws of `planner.cost.session` in integers.

Every quantity is bounded from below by what it costs, rounded up. Where a number of users is asked
for, times are bounded from above too, since a slower service has more users in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from planner.cost.candidates import Setting
from planner.cost.links import between_pools_bytes_per_s, link_bytes_per_s, tier_bytes
from planner.cost.workload import Workload
from planner.service import DIMENSIONS
from planner.solve.chains import Chain, write_chain
from planner.solve.cpsat import Quantity, Term, Writer
from planner.solve.decisions import Decisions, Deployment, Prompt
from planner.solve.tables import StageMemory

BUSY, LATENCY, STEPS, LATER_BUSY, LATER_LATENCY, LATER_STEPS, LARGEST = range(7)
"""Rows of `planner.solve.tables.Prefill`."""

TIME_BITS, STEP_BITS, SHARE_BITS, COARSE_BITS = 34, 30, 34, 26
MOST_RESIDENT = 1 << 18


class Times:
    """Quantities of one session on the chosen deployment [s]."""

    def __init__(self, decisions: Decisions, writer: Writer, *, exact: bool) -> None:
        self.of = decisions
        self.writer = writer
        self.exact = exact
        self.setting: Setting = decisions.table(next(iter(decisions.unit))).setting
        self.work: Workload = self.setting.workload
        self.later = self.work.rounds - 1
        self._leave()
        self._step()
        self._prompt()

    # ------------------------------------------------------------- what compression leaves

    def chain(self, name: str, effect: str, tokens: float, dimensions: Sequence[str] | None = None) -> Quantity:
        """Tokens' worth that the chosen options leave of so many [tokens]."""
        options = self.of.space.options
        order = tuple(dimensions) if dimensions else Chain.dimensions
        chain = Chain(name, effect, float(self.work.prompt_tokens), float(tokens), order)  # type: ignore[arg-type]
        return write_chain(self.writer, options, self.of.option, chain)

    def _leave(self) -> None:
        hidden = self.of.space.options["hidden"]
        self.narrow_reads = self._share("narrow-reads", [o.point.reads.slope if o.point else 1.0 for o in hidden])
        self.narrow = self._share("narrow", [o.point.storage.slope if o.point else 1.0 for o in hidden])

    def _share(self, name: str, shares: Sequence[float]) -> Quantity:
        found = self.writer.quantity(name, max(shares), max(shares) / 2**STEP_BITS)
        self.table(found, list(zip(shares, self.of.option["hidden"], strict=True)))
        return found

    def table(self, target: Quantity, rows: Sequence[tuple[float, Any]], when: Iterable[Any] = ()) -> None:
        """Require a quantity to be what the true one of exclusive literals says."""
        total = sum(self.writer.up(value, target) * literal for value, literal in rows)
        literals = list(when)
        self.writer.add(target.variable >= total, literals)
        if self.exact:
            self.writer.add(target.variable <= total, literals)

    def be(self, target: Quantity, terms: Sequence[Term], const: float = 0.0, when: Iterable[Any] = ()) -> None:
        """Require a quantity to be a sum."""
        literals = list(when)
        self.writer.at_least(target, terms, const, when=literals)
        if self.exact:
            self.writer.at_most(target, terms, const, when=literals)

    # ------------------------------------------------------------- the decode step

    def _step(self) -> None:
        tokens = self.work.decode_tokens
        self.read = self.chain("read", "reads", tokens)
        self.attend = self.chain("attend", "reads", tokens, ("token", "head", "attention"))
        pieces = {key: self.of.table(key[0]).pieces(key[1]) for key in self.of.decode}
        most = max(
            p.const_s
            + p.read_s * self.read.most_value
            + p.narrow_s * self.narrow_reads.most_value
            + p.attend_s * tokens
            for found in pieces.values()
            for p in found
        )
        factors = {name: [self._decode_factor(option) for option in self.of.space.options[name]] for name in DIMENSIONS}
        slowest = float(np.prod([max(row) for row in factors.values()]))
        step = self.writer.quantity("step", most, most * slowest / 2**STEP_BITS)
        which = [self.writer.model.new_bool_var(f"piece:{j}") for j in range(max(len(p) for p in pieces.values()))]
        if self.exact:
            self.writer.model.add_exactly_one(which)
        for key, literal in self.of.decode.items():
            for j, piece in enumerate(pieces[key]):
                terms = [(piece.read_s, self.read), (piece.narrow_s, self.narrow_reads), (piece.attend_s, self.attend)]
                self.writer.at_least(step, terms, piece.const_s, when=[literal])
                if self.exact:
                    self.writer.at_most(step, terms, piece.const_s, when=[literal, which[j]])
            if self.exact:
                for j in range(len(pieces[key]), len(which)):
                    self.writer.model.add_at_most_one([literal, which[j]])
        for name, row in factors.items():
            if max(row) > 1.0:
                slower = self.writer.quantity(f"step:{name}", most * slowest, step.unit)
                for factor, literal in zip(row, self.of.option[name], strict=True):
                    self.be(slower, [(factor, step)], when=[literal])
                step = slower
        self.step = step
        self.decode_s: Term = (float(self.work.rounds * self.work.output_tokens), step)

    def _decode_factor(self, option: Any) -> float:
        if not self.setting.efficiency.technique_time or option.point is None or option.point.overhead is None:
            return 1.0
        return max(1.0, option.point.overhead.decode or 1.0)

    # ------------------------------------------------------------- prefill

    def _prompt(self) -> None:
        self.busy, self.latency, self.largest, self.later_latency = self.prefills("", self.of.prompts)
        self.prompt_steps = self._steps("prompt-steps", STEPS)
        self.later_steps = self._steps("later-steps", LATER_STEPS)

    def prefills(self, prefix: str, prompts: list[tuple[Prompt, Any]]) -> tuple[Quantity, Quantity, Quantity, Quantity]:
        """GPU time of a session's prefills; latency of the first; the largest chunk; latency of a later one [s]."""
        later = float(self.later)
        return (
            self._from_prompts(f"{prefix}busy", lambda row: row[BUSY] + later * row[LATER_BUSY], prompts),
            self._from_prompts(f"{prefix}latency", lambda row: row[LATENCY], prompts),
            self._from_prompts(f"{prefix}largest", lambda row: row[LARGEST], prompts),
            self._from_prompts(f"{prefix}later-latency", lambda row: row[LATER_LATENCY], prompts),
        )

    def _from_prompts(self, name: str, of: Any, prompts: list[tuple[Prompt, Any]]) -> Quantity:
        kept = [(float(of(p.kept)), x) for p, x in prompts]
        again = [(float(of(p.again)), x) for p, x in prompts]
        most = max([1e-9, *(value for value, _ in kept), *(value for value, _ in again)])
        found = self.writer.quantity(name, most, most / 2**TIME_BITS)
        if kept == again:
            self.table(found, kept)
        else:
            self.table(found, kept, [~self.of.recompute])
            self.table(found, again, [self.of.recompute])
        return found

    def _steps(self, name: str, row: int) -> Quantity:
        """Decode steps that a prefill gives way to, as time."""
        counts = [float(r[row]) for p, _ in self.of.prompts for r in (p.kept, p.again)]
        most = max(counts) * self.step.most_value + 1e-9
        found = self.writer.quantity(name, most, most / 2**TIME_BITS)
        for prompt, literal in self.of.prompts:
            kept, again = float(prompt.kept[row]), float(prompt.again[row])
            if kept == again:
                self.be(found, [(kept, self.step)], when=[literal])
            else:
                self.be(found, [(kept, self.step)], when=[literal, ~self.of.recompute])
                self.be(found, [(again, self.step)], when=[literal, self.of.recompute])
        return found


class Caches:
    """Quantities of one session's cache: shares of HBM, bytes that move [bytes per GPU]."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.of, self.writer, self.work = times.of, times.writer, times.work
        self.shared = float(self.work.shared_prefix_tokens)
        self._prefix: Quantity | None = None
        self._known_links: dict[int, list[tuple[tuple[float, float], list[Any]]]] = {}
        end = float(self.work.end_tokens)
        stored = self.times.chain("stored-end", "storage", end)
        self.resident = self._reside("", self.of.unit, stored, end)
        """Sessions that a replica holds which decodes."""
        pools = sorted({d.pool for d in self.of.deployment if d.pool >= 0})
        prefilling = {
            u: self.of.any_of(f"pool:{u}", [x for d, x in self.of.deployment.items() if d.pool == u]) for u in pools
        }
        self.pool_resident = self._reside("pool-", prefilling, stored, end) if pools else None
        """Sessions that a prefill pool's replica holds."""

    @property
    def prefix(self) -> Quantity | None:
        """Tokens' worth of the shared prefix; None without one."""
        if self.shared > 0 and self._prefix is None:
            prompt = float(self.work.prompt_tokens)
            whole = self.times.chain("stored-prompt", "storage", prompt)
            share = min(1.0, self.shared / prompt)
            self._prefix = self.writer.quantity("prefix", whole.most_value * share, whole.unit)
            # Sessions store less by it: it must be neither more nor less.
            self.writer.at_least(self._prefix, [(share, whole)])
            self.writer.at_most(self._prefix, [(share, whole)])
        return self._prefix

    def session(self, stage: StageMemory, stored: Quantity, tokens: float, *, shared: bool) -> tuple[list[Term], float]:
        """Bytes of one session of so many tokens on a stage, as terms and a constant."""
        terms: list[Term] = [(stage.grow, stored), (stage.narrow(tokens), self.times.narrow)]
        own = tokens
        if shared and self.prefix is not None:
            terms.append((-stage.grow, self.prefix))
            own -= self.shared
        return terms, stage.const + stage.fixed * own

    def largest(self, name: str, tokens: float, *, shared: bool, decodes: bool = False) -> Quantity:
        """Bytes of one session on the GPU that holds most of it, where it waits or where it decodes [bytes]."""
        stored = self.times.chain(f"stored-{name}", "storage", tokens)
        units = self.of.unit if decodes else self.of.holder
        stages = {u: self.of.table(u).memory() for u in units}
        most = max(
            s.const + s.fixed * tokens + s.grow * stored.most_value + s.narrow(tokens) * self.times.narrow.most_value
            for found in stages.values()
            for s in found
        )
        found = self.writer.quantity(f"bytes-{name}", most, most / 2**SHARE_BITS)
        deepest = max(len(s) for s in stages.values())
        which = [self.writer.model.new_bool_var(f"bytes-{name}:{j}") for j in range(deepest)]
        if self.times.exact:
            self.writer.model.add_exactly_one(which)
        for u, literal in units.items():
            for j, stage in enumerate(stages[u]):
                terms, const = self.session(stage, stored, tokens, shared=shared)
                self.writer.at_least(found, terms, const, when=[literal])
                if self.times.exact:
                    self.writer.at_most(found, terms, const, when=[literal, which[j]])
            if self.times.exact:
                for j in range(len(stages[u]), deepest):
                    self.writer.model.add_at_most_one([literal, which[j]])
        return found

    def _reside(self, name: str, units: dict[int, Any], stored: Quantity, end: float) -> Any:
        """Sessions that fit: ``N bytes + prefix <= free`` on every stage of the chosen unit."""
        model = self.writer.model
        resident = model.new_int_var(1, MOST_RESIDENT, f"{name}resident")
        deepest = max(len(self.of.table(u).memory()) for u in units)
        one = Quantity(resident, 1.0, MOST_RESIDENT)
        for j in range(deepest):
            share = self.writer.quantity(f"{name}share:{j}", 1.0, 2.0**-SHARE_BITS)
            prefix = self.writer.quantity(f"{name}prefix-share:{j}", 1.0, 2.0**-SHARE_BITS)
            for u, literal in units.items():
                stages = self.of.table(u).memory()
                if j < len(stages):
                    terms, const = self.session(stages[j], stored, end, shared=True)
                    free = stages[j].free
                    self.writer.at_least(share, [(c / free, q) for c, q in terms], const / free, when=[literal])
                    if self.prefix is not None:
                        fixed = stages[j].fixed * self.shared / free
                        self.writer.at_least(prefix, [(stages[j].grow / free, self.prefix)], fixed, when=[literal])
            taken = self.writer.product(f"{name}taken:{j}", one, share)
            model.add(taken.variable + (prefix.variable if self.prefix is not None else 0) <= 2**SHARE_BITS)
        return resident

    def copies(self) -> tuple[Quantity, Quantity]:
        """One session's own cache into HBM and out of it; nothing unless swapping [s]."""
        if not self.swaps:
            nothing = self.writer.quantity("no-swap", 0.0, 1e-9)
            return nothing, nothing
        moved = self.largest("warm", self.work.warm_tokens, shared=True)
        return self._over_link("swap-in", moved, 0), self._over_link("swap-out", moved, 1)

    def out_in_all(self) -> Quantity:
        """What a whole session copies out [s]."""
        return self._over_link("swap-out-all", self.largest("last", self.work.last_warm_tokens, shared=True), 1)

    def switch(self) -> Quantity:
        """One whole cache out and one in, over the link of the policy's tier [s]."""
        whole = self.largest("whole", self.work.warm_tokens, shared=False)
        links = [(literals, 1.0 / into + 1.0 / out) for p in self.of.policy for (into, out), literals in self._links(p)]
        slowest = max(both for _, both in links)
        found = self.writer.quantity("switch", whole.most_value * slowest, whole.most_value * slowest / 2**TIME_BITS)
        for literals, both in links:
            self.times.be(found, [(both, whole)], when=literals)
        return found

    @property
    def swaps(self) -> bool:
        """Whether any policy that is left moves caches between rounds."""
        return self.times.later > 0 and any(self.of.space.policies[p].policy == "swap" for p in self.of.policy)

    def _links(self, policy: int) -> list[tuple[tuple[float, float], list[Any]]]:
        """Rates into and out of a policy's tier, each with the literals under which they hold: engines differ."""
        if policy not in self._known_links:
            tier = np.array([1 if self.of.space.policies[policy].tier == "nvme" else 0])
            units: dict[tuple[float, float], list[Any]] = {}
            for u, literal in self.of.unit.items():
                into, out = link_bytes_per_s(self.of.table(u).setting, tier)
                units.setdefault((float(into[0]), float(out[0])), []).append(literal)
            chosen = self.of.policy[policy]
            self._known_links[policy] = [
                (rates, [chosen] if len(units) == 1 else [chosen, self.of.any_of(f"link:{policy}:{j}", literals)])
                for j, (rates, literals) in enumerate(units.items())
            ]
        return self._known_links[policy]

    def _over_link(self, name: str, moved: Quantity, direction: int) -> Quantity:
        swapping = [p for p in self.of.policy if self.of.space.policies[p].policy == "swap"]
        slowest = max(1.0 / rates[direction] for p in swapping for rates, _ in self._links(p))
        found = self.writer.quantity(name, moved.most_value * slowest, moved.most_value * slowest / 2**TIME_BITS)
        for p, literal in self.of.policy.items():
            if p in swapping:
                for rates, literals in self._links(p):
                    self.times.be(found, [(1.0 / rates[direction], moved)], when=literals)
            elif self.times.exact:
                self.writer.add(found.variable == 0, [literal])
        return found

    def tier_share(self) -> Quantity:
        """Share of a replica's part of the tier that one session takes; above 1 if it doesn't fit."""
        end = self.largest("end", self.work.end_tokens, shared=True)
        worst = max(end.most_value / self._tier(u, p) for u in self.of.holder for p in self._tiers())
        found = self.writer.quantity("tier-share", worst, worst / 2**TIME_BITS)
        for u, unit in self.of.holder.items():
            for p in self._tiers():
                self.writer.at_least(found, [(1.0 / self._tier(u, p), end)], when=[unit, self.of.policy[p]])
        return found

    def _tiers(self) -> list[int]:
        return [p for p in self.of.policy if self.of.space.policies[p].policy == "swap"]

    def _tier(self, unit: int, policy: int) -> float:
        """Bytes of the tier per GPU of a unit [bytes]."""
        tier = 1 if self.of.space.policies[policy].tier == "nvme" else 0
        gpus = self.of.table(unit).gpus
        return float(tier_bytes(self.times.setting, np.array([tier]), gpus)[0]) / gpus

    def seconds_per_byte(self, deployment: Deployment) -> tuple[float, float]:
        """Per byte that a decode GPU receives: of one transfer, and of the link's time per session [s/byte]."""
        decode, pool = self.of.table(deployment.unit).gpus, self.of.table(deployment.pool).gpus
        gpus = deployment.replicas * decode + deployment.pool_replicas * pool
        rate = float(between_pools_bytes_per_s(self.times.setting, np.array([gpus]))[0])
        senders = min(float(decode), pool * deployment.pool_replicas / deployment.replicas)
        return decode / (rate * min(decode, pool)), decode / (rate * senders)
