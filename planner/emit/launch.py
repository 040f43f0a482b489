"""How an engine is started, before any platform writes it down: program, flags, environment, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.emit.deployment import PoolPlan

Value = str | int | float | bool | tuple[str, ...]
Flags = tuple[tuple[str, Value], ...]

CONFIG_DIRECTORY = "/etc/plan"
"""Where containers find the files of a launch."""
KEY_VARIABLE = "PLAN_API_KEY"
"""Holds the API's key for engines that take it as a flag only."""
SHARED_MEMORY_BYTES = 16 << 30
"""Shared memory for the ranks of an instance to talk through, beside what offloading takes [bytes]."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One pool's engine: what every instance of it is started with."""

    engine: str
    version: str
    image: str
    """Empty where none is known for this GPU's maker."""
    program: tuple[str, ...]
    """The command, and the model where it is a positional argument."""
    program_words: int
    """How many of these words start the program, without the model."""
    model: str
    """What is loaded: a hub id, a path, or a path below ``{models}`` that has to be made first."""
    flags: Flags
    """In order; True is a bare flag."""
    pool: PoolPlan
    port: int
    port_flag: str = "--port"
    health_path: str = "/health"
    generation_path: str | None = None
    """Where a server answers only after it has generated a token; None: it has no such place."""
    drains: bool = True
    """Whether the engine finishes what it works on when it is told to stop."""
    metrics_path: str | None = "/metrics"
    """Where Prometheus reads; None: the engine exports nothing."""
    key_variable: str | None = None
    """Environment variable from which the engine takes the API's key."""
    key_flag: str | None = None
    """Flag for the API's key, of an engine that reads no variable."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the command reads, by name; the command names them below ``directory``."""
    config: str | None = None
    """The same settings as the engine's own config file."""
    config_command: str = ""
    """Command that starts the engine from ``{file}``."""
    batched_tokens: int = 0
    """Tokens of one step where vLLM's allocation is known; else 0 [tokens]."""
    notes: tuple[str, ...] = ()
    """What an operator should know."""
    admitted: int | None = None
    """Requests that an instance takes before it refuses; None: it refuses none, further ones wait."""
    nodes: int = 1
    """Servers of one instance."""
    gpus_per_node: int = 1
    node_flags: Flags = ()
    """Flags of an instance over several servers; ``{rank}``, ``{head}`` stand for the server's rank and the first
    server's address."""
    worker_flags: Flags = ()
    """Of all servers but the first."""
    first_node_flags: frozenset[str] = frozenset()
    """Names of flags that only the first server takes: of the API that it alone serves."""
    shared_memory_bytes: int = SHARED_MEMORY_BYTES
    host_memory_bytes: int = 0
    """Host memory that the plan gives to caches [bytes]."""
    disk_bytes: int = 0
    """Local disk that the plan gives to caches [bytes]."""
    disk_is_bounded: bool = True
    """Whether the engine itself keeps to `disk_bytes`."""
    pod_address_variable: str | None = None
    """Environment variable that must hold the instance's own address."""
    port_variables: tuple[str, ...] = ()
    """Environment variables with ports that instances on one server must not share."""
    port_flags: tuple[str, ...] = ()
    """Flags, beside the port's own, with ports that instances on one server must not share."""
    is_server: bool = True
    container_prefix: str = ""
    """Directory of the program inside the image, where it isn't on its path."""
    api_name: str | None = None
    """Name of the model in the API where the engine doesn't take the planned one."""
    packages: tuple[str, ...] = ()
    """Python packages that must be there in the launch's version, for scripts outside of containers."""
    checkpoint_script: str | None = None
    """Program that makes ``model``; its argument is the path."""
    checkpoint_packages: str = ""
    """What to install before it runs, empty if the image has it."""

    @property
    def key_words(self) -> str:
        """Return shell words that give the engine its key where one is set; empty if it reads its own variable."""
        return "" if self.key_flag is None else f'${{{KEY_VARIABLE}:+{self.key_flag} "${KEY_VARIABLE}"}}'

    @property
    def makes_checkpoint(self) -> bool:
        """Tell whether the model has to be made before the first start."""
        return self.checkpoint_script is not None

    def make_command(self, script: str) -> str:
        """Return the shell command that makes the model at ``$0`` unless it is there.

        One of several that start together makes it; half of a model is never taken for one.
        """
        install = f"pip install --no-cache-dir {self.checkpoint_packages} && " if self.checkpoint_packages else ""
        make = f'{install}python3 {script} "$0.part" && mv "$0.part" "$0"'
        return f'mkdir -p "${{0%/*}}" && ( flock 9 && {{ [ -e "$0" ] || {{ {make}; }}; }} ) 9>"$0.lock"'

    @property
    def shared_flags(self) -> Flags:
        """Flags that every server of an instance takes."""
        return tuple(flag for flag in self.flags if flag[0] not in self.first_node_flags)

    def arguments(self, directory: str, *, is_worker: bool = False) -> list[str]:
        """Return the whole command line with the launch's files below a directory.

        Parameters
        ----------
        directory
            Of the launch's files.
        is_worker
            Whether it is for a server after an instance's first; without the flags of its place among them.
        """
        words = [word.replace("{directory}", directory) for word in self.program]
        if directory == CONFIG_DIRECTORY:
            words[0] = self.container_prefix + words[0]
        return words + flag_words(self.shared_flags if is_worker else self.flags, directory)

    def value(self, name: str) -> str | float | None:
        """Return the value of a flag that has one, None if it isn't given."""
        found = next((value for flag, value in self.flags if flag == name), None)
        return None if isinstance(found, tuple) else found


def flag_words(flags: Flags, directory: str = CONFIG_DIRECTORY) -> list[str]:
    """Return flags as words of a command line."""
    words: list[str] = []
    for name, value in flags:
        words.append(name)
        if isinstance(value, tuple):
            words += value
        elif value is not True:
            words.append(text(value).replace("{directory}", directory))
    return words


def text(value: Value) -> str:
    """Return a value as a command line writes it: plain integers, no exponents for what is whole.

    >>> text(1_001_750), text(0.92), text(512.0)
    ('1001750', '0.92', '512')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one instance of one of several kinds stands."""

    server: int
    first_gpu: int
    port: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the instances of a launch stand when servers are filled in order."""

    slots: int
    """Instances on one server."""
    first_gpu: int
    """First GPU of the pool on a server that it shares with another pool."""
    first_port: int
    spots: tuple[Spot, ...] = ()
    """Of each instance, where several kinds share servers."""

    def gpu(self, index: int, gpus: int) -> int:
        """Return the first GPU of an instance on its server."""
        return self.spots[index].first_gpu if self.spots else self.first_gpu + index * gpus


def places(launches: list[Launch], gpus_per_node: int) -> dict[str, Place]:
    """Return each pool's place, by name: side by side where all fit one server, else on servers of their own."""
    if any(launch.pool.kind for launch in launches):
        return _places_of_kinds(launches)
    total = sum(launch.gpus_per_node * launch.nodes * launch.pool.instances for launch in launches)
    together = total <= gpus_per_node
    found: dict[str, Place] = {}
    gpu = 0
    port = launches[0].port
    for launch in launches:
        slots = 1 if launch.nodes > 1 else min(launch.pool.instances, gpus_per_node // launch.gpus_per_node)
        found[launch.pool.name] = Place(slots, gpu, port)
        if together:
            gpu += launch.gpus_per_node * launch.pool.instances
            port += launch.pool.instances
    return found


def _places_of_kinds(launches: list[Launch]) -> dict[str, Place]:
    """Return where each instance stands on its server: larger ones on the first GPUs."""
    gpus: Counter[int] = Counter()
    ports: Counter[int] = Counter()
    found: dict[str, Place] = {}
    for launch in sorted(launches, key=lambda one: -one.gpus_per_node):
        spots = []
        for server in launch.pool.servers:
            spots.append(Spot(server, gpus[server], launch.port + ports[server]))
            gpus[server] += launch.gpus_per_node
            ports[server] += 1
        found[launch.pool.name] = Place(1, spots[0].first_gpu, spots[0].port, tuple(spots))
    return found


def servers(pool: PoolPlan, gpus_per_node: int) -> tuple[int, int]:
    """Return over how many servers an instance spreads, and its GPUs on each.

    Whole tensor-parallel groups stay on a server where they fit.
    """
    gpus = pool.instance_gpus
    if gpus <= gpus_per_node:
        return 1, gpus
    group = pool.tp if pool.tp <= gpus_per_node else 1
    each = max(n for n in range(1, gpus_per_node + 1) if gpus % n == 0 and (n % group == 0 or group == 1))
    return gpus // each, each
