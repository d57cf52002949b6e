"""Replay of whole episodes in pre-allocated tensors; sub-sequences sampled from it never leave their episode.

Layout: a ring of `capacity` slots. An episode of T steps takes T + 1 neighbouring slots (modulo capacity): slot
t holds observation t and the action, reward and flags of the step from t to t + 1; the last slot holds the final
observation only. New episodes are written at the head and evict the oldest ones they run into.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tdmpc_lab.config.schema import ReplayDraw
from tdmpc_lab.errors import CheckpointError, ConfigError

FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
BoolArray = NDArray[np.bool_]

_TENSORS = ("observations", "actions", "rewards", "terminated", "truncated")
_PLANS = ("random", "plan_mean", "plan_std")
DEVICE_SHARE = 0.5  # of the device's free memory; the rest is left for networks, gradients and planning


@dataclass(frozen=True)
class Plans:
    """How the actions of an episode of T steps, or of a part of one, were chosen."""

    random: BoolArray  # (T,) at random, without a plan
    mean: HalfArray  # (T, A) of the planner's final distribution of the action, before its noise; 0 where random
    std: HalfArray  # (T, A) its standard deviation

    @classmethod
    def unknown(cls, steps: int, action_dim: int) -> Plans:
        """Of steps that nothing is known of: they count as random."""
        zeros = np.zeros((steps, action_dim), dtype=np.float16)
        return cls(np.ones(steps, dtype=np.bool_), zeros, zeros)


@dataclass(frozen=True)
class Episode:
    """One finished episode of T steps from one environment."""

    observations: FloatArray  # (T + 1, O)
    actions: FloatArray  # (T, A) in [-1, 1]
    rewards: FloatArray  # (T,)
    terminated: BoolArray  # (T,) the task ended here: no value beyond
    truncated: BoolArray  # (T,) cut off here, e.g. by a time limit: value continues
    plans: Plans | None = None

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Batch:
    """B sub-sequences of W steps, time first, on the training device: H to learn from, and those that only the targets
    of more than one step reach.

    Behind an episode's end the last observation is repeated, and all else is 0.
    """

    observations: Tensor  # (W + 1, B, O)
    actions: Tensor  # (W, B, A)
    rewards: Tensor  # (W, B)
    terminated: Tensor  # (W, B) as float, 1 where the task ended
    truncated: Tensor  # (W, B) as float; never used for bootstrapping
    valid: Tensor | None = None  # (W, B) as float, 0 behind an episode's end; None where no sub-sequence runs over one
    random: Tensor | None = None  # (W, B) as float; this and the next as in `Plans`, None where they are not kept
    plan_mean: Tensor | None = None  # (W, B, A)
    plan_std: Tensor | None = None  # (W, B, A)

    def mask(self, steps: int) -> Tensor | None:
        """`valid` of the first steps; None where all of them are."""
        return None if self.valid is None else self.valid[:steps]

    def mask_of_states(self, states: int) -> Tensor | None:
        """The same for the first states (states, B): the one that an episode ended in is the last that counts."""
        if self.valid is None:
            return None
        return torch.cat([torch.ones_like(self.valid[:1]), self.valid[: states - 1]])


@dataclass(frozen=True)
class Placement:
    """Where the replay lies, and why."""

    device: torch.device
    reason: str


def replay_bytes(capacity: int, observation_dim: int, action_dim: int, *, plans: bool = False) -> int:
    """Memory the replay's tensors take, in bytes."""
    return capacity * (4 * (observation_dim + action_dim + 1) + 2 + plans * (2 * 2 * action_dim + 1))


def choose_placement(device: torch.device, needed: int, free: int | None, *, host_only: bool = False) -> Placement:
    """Training device or host memory for a replay of `needed` bytes, with the reason in words.

    Args:
        free: free bytes of the training device; None where it shares the host's memory.
        host_only: the user asked for host memory.
    """
    size = _size(needed)
    host = torch.device("cpu")
    if device.type == "cpu":
        return Placement(host, f"replay of {size} in host memory, where the training runs")
    if host_only:
        return Placement(host, f"replay of {size} in host memory, as asked for")
    if free is not None and needed > DEVICE_SHARE * free:
        return Placement(
            host,
            f"replay of {size} in host memory: more than {DEVICE_SHARE:.0%} of the {_size(free)} free on {device}",
        )
    return Placement(device, f"replay of {size} on {device}")


@dataclass(frozen=True)
class _SequenceIndex:
    """Sub-sequences numbered through all episodes that have any, oldest first."""

    ends: Tensor  # (episodes,) sub-sequences in this and all older episodes
    counts: Tensor  # (episodes,) sub-sequences in this one
    starts: Tensor  # (episodes,) slot of its first step
    steps: Tensor  # (episodes,) its steps
    total: int


def _size(count: int) -> str:
    """Bytes for reading."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


class Replay:
    """Episodes of one or several environments, sampled as sub-sequences of `horizon` steps.

    Args:
        capacity: slots; an episode of T steps takes T + 1.
        horizon: steps of a sampled sub-sequence; shorter episodes are kept out of the sampling and counted.
        device: where batches are wanted.
        td_steps: the rewards that a target sums: a batch has so many steps less one more than the horizon.
        draw: over all sub-sequences uniformly, or an episode and then a start in it.
        past_ends: any step may start a sub-sequence, which may run over its episode's end.
        plans: keep how actions were chosen (`Plans`).
        host_only: keep the tensors in host memory even if the device has room.

    Raises:
        ConfigError: the capacity does not hold one sub-sequence.
    """

    def __init__(
        self,
        *,
        capacity: int,
        observation_dim: int,
        action_dim: int,
        horizon: int,
        device: torch.device,
        seed: int = 0,
        host_only: bool = False,
        td_steps: int = 1,
        draw: ReplayDraw = "uniform",
        past_ends: bool = False,
        plans: bool = False,
    ) -> None:
        if capacity < horizon + 1:
            raise ConfigError(f"replay capacity {capacity} does not hold one sub-sequence of horizon {horizon}")
        self.capacity = capacity
        self.horizon = horizon
        self.shortest = 1 if past_ends else horizon
        """Steps of the shortest episode that can be learned from."""
        self.window = horizon + td_steps - 1
        self.draw = draw
        self.device = device
        needed = replay_bytes(capacity, observation_dim, action_dim, plans=plans)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        self.placement = choose_placement(device, needed, free, host_only=host_only)
        where = self.placement.device
        self._observations = torch.zeros(capacity, observation_dim, device=where)
        self._actions = torch.zeros(capacity, action_dim, device=where)
        self._rewards = torch.zeros(capacity, device=where)
        self._terminated = torch.zeros(capacity, dtype=torch.bool, device=where)
        self._truncated = torch.zeros(capacity, dtype=torch.bool, device=where)
        self.keeps_plans = plans
        self._names = _TENSORS + (_PLANS if plans else ())
        if plans:
            self._random = torch.zeros(capacity, dtype=torch.bool, device=where)
            self._plan_mean = torch.zeros(capacity, action_dim, dtype=torch.float16, device=where)
            self._plan_std = torch.zeros(capacity, action_dim, dtype=torch.float16, device=where)
        self._drawn = torch.zeros(capacity, dtype=torch.bool, device=where)  # a sub-sequence sampled began here
        self._left_unseen = torch.zeros((), dtype=torch.long, device=where)  # episodes dropped, never sampled
        self._generator = Generator(where).manual_seed(seed)
        self._episodes: deque[tuple[int, int]] = deque()  # (first slot, steps), oldest first
        self._head = 0
        self._index: _SequenceIndex | None = None
        self.episodes_added = 0
        self.episodes_too_short = 0

    def __len__(self) -> int:
        """Steps held."""
        return sum(steps for _, steps in self._episodes)

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self._episodes)

    @property
    def sequences(self) -> int:
        """Different sub-sequences that can be sampled now."""
        return sum(max(0, steps - self.shortest + 1) for _, steps in self._episodes)

    def add(self, episode: Episode) -> None:
        """Store a finished episode, overwriting the oldest ones where there is no room.

        Raises:
            ConfigError: the episode alone is longer than the replay, or its arrays do not fit each other.
        """
        steps = len(episode)
        self._check(episode)
        self._evict(steps + 1)
        slots = (self._head + torch.arange(steps + 1)).remainder(self.capacity).to(self._rewards.device)
        inner = slots[:-1]
        self._drawn[slots] = False
        self._observations[slots] = self._to_device(episode.observations)
        self._actions[inner] = self._to_device(episode.actions)
        self._rewards[inner] = self._to_device(episode.rewards)
        self._terminated[inner] = self._to_device(episode.terminated)
        self._truncated[inner] = self._to_device(episode.truncated)
        if self.keeps_plans:
            plans = episode.plans or Plans.unknown(steps, self._actions.shape[1])
            self._random[inner] = self._to_device(plans.random)
            self._plan_mean[inner] = self._to_device(plans.mean)
            self._plan_std[inner] = self._to_device(plans.std)
        self._episodes.append((self._head, steps))
        self._head = (self._head + steps + 1) % self.capacity
        self._index = None
        self.episodes_added += 1
        self.episodes_too_short += steps < self.shortest

    def _check(self, episode: Episode) -> None:
        steps = len(episode)
        if steps < 1:
            raise ConfigError("an episode needs at least one step")
        if steps + 1 > self.capacity:
            raise ConfigError(
                f"an episode of {steps} steps does not fit a replay of {self.capacity} slots; raise "
                "train.replay_capacity or lower env.max_episode_steps"
            )
        expected = {
            "observations": (steps + 1, self._observations.shape[1]),
            "actions": (steps, self._actions.shape[1]),
            "terminated": (steps,),
            "truncated": (steps,),
        }
        for name, shape in expected.items():
            found = getattr(episode, name).shape
            if found != shape:
                raise ConfigError(f"episode.{name} has shape {found}, expected {shape}")

    def _to_device(self, array: FloatArray | HalfArray | BoolArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._rewards.device)

    def _evict(self, slots: int) -> None:
        """Drop the oldest episodes until `slots` slots from the head on are free."""
        used = sum(steps + 1 for _, steps in self._episodes)
        while self.capacity - used < slots:
            start, steps = self._episodes.popleft()
            gone = (start + torch.arange(steps)).remainder(self.capacity).to(self._rewards.device)
            self._left_unseen.add_(~self._drawn[gone].any())
            used -= steps + 1

    def sample(self, batch_size: int, *, generator: Generator | None = None) -> Batch:
        """Draw `batch_size` sub-sequences; none continues in another episode.

        Args:
            generator: for draws that are to leave the replay's own alone; on the replay's device.

        Raises:
            ConfigError: no episode is long enough yet.
        """
        index = self._sequence_index()
        if index.total == 0:
            raise ConfigError(
                f"the replay holds {self.episodes} episodes, none of at least {self.shortest} steps"
                + (" (the horizon)" if self.shortest == self.horizon else "")
            )
        episode, first = self._draw(index, batch_size, generator or self._generator)
        if generator is None:  # others learn nothing from it
            self._drawn[(index.starts[episode] + first).remainder(self.capacity)] = True
        return self._gather(index.starts[episode], index.steps[episode], first)

    def _draw(self, index: _SequenceIndex, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Which episodes of the index (B,), and at which of their steps (B,)."""
        where = self._rewards.device
        if self.draw == "episode":
            episode = torch.randint(len(index.counts), (size,), generator=generator, device=where)
            share = torch.rand(size, generator=generator, device=where, dtype=torch.float64)
            return episode, (share * index.counts[episode]).long()
        number = torch.randint(index.total, (size,), generator=generator, device=where)
        episode = torch.searchsorted(index.ends, number, right=True)
        return episode, number - (index.ends - index.counts)[episode]

    def _gather(self, starts: Tensor, steps: Tensor, first: Tensor) -> Batch:
        """The sub-sequences that begin at step `first` (B,) of episodes of `steps` (B,) steps in the slots `starts`."""
        at = first + torch.arange(self.window + 1, device=first.device).unsqueeze(1)  # (W + 1, B)
        slots = (starts + at.minimum(steps)).remainder(self.capacity)
        valid = None
        if self.shortest < self.horizon or self.window > self.horizon:
            valid = (at[:-1] < steps).float()

        def inner(tensor: Tensor) -> Tensor:
            values = tensor[slots[:-1]].float()
            if valid is not None:  # the slot of a last observation holds what an older episode left there
                values *= valid if values.dim() == 2 else valid.unsqueeze(-1)
            return self._out(values)

        plans = {name: inner(getattr(self, f"_{name}")) for name in _PLANS if name in self._names}
        return Batch(
            self._out(self._observations[slots]),
            inner(self._actions),
            inner(self._rewards),
            inner(self._terminated),
            inner(self._truncated),
            None if valid is None else self._out(valid),
            **plans,
        )

    def newest(self, steps: int) -> list[Episode]:
        """The newest episodes, newest first, until they have `steps` steps or more; fewer where there are no more."""
        found: list[Episode] = []
        tensors = self._held_tensors()
        for start, length in reversed(self._episodes):
            if steps <= 0:
                break
            found += _unpack(_pack(tensors, [(start, length)], self.capacity, 0))
            steps -= length
        return found

    def ages(self) -> dict[str, float]:
        """How old what can be sampled is, in steps taken since; and the share of all episodes so far never sampled.

        Those are episodes too short to be learned from, and those dropped before a draw met them.
        """
        later = sampled = weighted = oldest = 0
        for _, steps in reversed(self._episodes):
            count = max(0, steps - self.shortest + 1)
            sampled += count
            weighted += count * later
            oldest = later if count else oldest
            later += steps
        short = sum(steps < self.shortest for _, steps in self._episodes)
        return {
            "diag/replay_age_mean": weighted / max(sampled, 1),
            "diag/replay_age_max": float(oldest),
            "diag/never_sampled": (short + int(self._left_unseen)) / max(self.episodes_added, 1),
        }

    def _held_tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, f"_{name}") for name in self._names}

    def _out(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _sequence_index(self) -> _SequenceIndex:
        """The index for the episodes held now; made anew after an episode was added."""
        if self._index is None:
            usable = [(start, steps) for start, steps in self._episodes if steps >= self.shortest]
            starts, steps = torch.tensor(usable, dtype=torch.long).reshape(-1, 2).unbind(1)
            counts = steps - self.shortest + 1
            where = self._rewards.device
            ends = counts.cumsum(0)
            self._index = _SequenceIndex(
                ends.to(where), counts.to(where), starts.to(where), steps.to(where), int(counts.sum())
            )
        return self._index

    @property
    def oldest(self) -> int:
        """Number of the oldest episode held; episodes are numbered from 0 in the order they were added."""
        return self.episodes_added - len(self._episodes)

    def slots_from(self, first: int) -> int:
        """Slots taken by the episodes from number `first` on."""
        return sum(steps + 1 for _, steps in itertools.islice(self._episodes, max(0, first - self.oldest), None))

    def layout(self) -> dict[str, Any]:
        """What `state_dict` holds beside the episodes themselves: small, whatever is held."""
        return {
            "episodes": torch.tensor(list(self._episodes), dtype=torch.long).reshape(-1, 2),
            "head": self._head,
            "capacity": self.capacity,
            "generator": self._generator.get_state(),
            "episodes_added": self.episodes_added,
            "episodes_too_short": self.episodes_too_short,
            "drawn": self._episodes_drawn(),
            "left_unseen": int(self._left_unseen),
        }

    def _episodes_drawn(self) -> Tensor:
        """Whether each of the episodes held (E,) was sampled, on the host."""
        starts, steps = torch.tensor(list(self._episodes), dtype=torch.long).reshape(-1, 2).unbind(1)
        drawn = self._drawn.cpu()[_slots(starts, steps, self.capacity)].long()
        numbers = torch.repeat_interleave(torch.arange(len(steps)), steps + 1)
        return torch.zeros(len(steps), dtype=torch.long).index_add(0, numbers, drawn) > 0

    def part(self, first: int) -> dict[str, Any]:
        """The episodes from number `first` on, one behind the other, copied to host memory.

        `steps` (E,) are their lengths; an episode takes one row more than its steps in every other tensor.
        """
        tensors = self._held_tensors()
        chosen = list(self._episodes)[max(0, first - self.oldest) :]
        return _pack(tensors, chosen, self.capacity, self.episodes_added - len(chosen))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the same draws: the ring, the generator and all episodes held."""
        return {**self.layout(), "parts": [self.part(self.oldest)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `layout` with `parts`, which together hold all of its episodes and perhaps older ones.

        Raises:
            CheckpointError: it was made with other sizes, or episodes are missing in it.
        """
        episodes = [(int(start), int(steps)) for start, steps in state["episodes"].tolist()]
        oldest = int(state["episodes_added"]) - len(episodes)
        parts = [_held(part, oldest, self._names) for part in state["parts"]]
        self._check_parts(parts, [steps for _, steps in episodes])
        if state["capacity"] == self.capacity:
            self._episodes = deque(episodes)
            self._head = int(state["head"])
            starts = iter([start for start, _ in episodes])
            for part in parts:
                first = torch.tensor(list(itertools.islice(starts, len(part["steps"]))), dtype=torch.long)
                slots = _slots(first, part["steps"], self.capacity).to(self._rewards.device)
                for name in self._names:
                    getattr(self, f"_{name}")[slots] = part[name].to(self._rewards.device)
        else:  # another capacity: the ring is laid anew, the oldest episodes leaving first
            self._episodes.clear()
            self._head = 0
            for part in parts:
                for episode in _unpack(part):
                    self.add(episode)
        self._take_over_draws(state)
        self._generator.set_state(state["generator"])
        self.episodes_added = int(state["episodes_added"])
        self.episodes_too_short = int(state["episodes_too_short"])
        self._index = None

    def _take_over_draws(self, state: Mapping[str, Any]) -> None:
        """Which episodes were sampled. A checkpoint of an earlier version does not know: all were, then."""
        drawn = state.get("drawn", torch.ones(len(self._episodes), dtype=torch.bool))[-len(self._episodes) :]
        starts = torch.tensor([start for start, _ in self._episodes], dtype=torch.long)
        self._drawn.zero_()
        self._drawn[starts[drawn].to(self._drawn.device)] = True
        self._left_unseen.fill_(int(state.get("left_unseen", 0)))

    def _check_parts(self, parts: Sequence[dict[str, Any]], steps: Sequence[int]) -> None:
        expected = (self._observations.shape[1], self._actions.shape[1])
        for part in parts:
            found = (part["observations"].shape[1], part["actions"].shape[1])
            if found != expected:
                raise CheckpointError(
                    f"the replay in the checkpoint has (observation, action) sizes {found}, the spec asks for "
                    f"{expected}"
                )
        lengths = [int(length) for part in parts for length in part["steps"]]
        if lengths != list(steps):
            raise CheckpointError(
                f"the replay in the checkpoint names {len(steps):,} episodes of {sum(steps):,} steps, and "
                f"{len(lengths):,} of {sum(lengths):,} steps are there"
            )


def _slots(starts: Tensor, steps: Tensor, capacity: int) -> Tensor:
    """The slots of episodes of `steps` (E,) steps that begin at `starts` (E,), one episode behind the other."""
    lengths = steps + 1
    before = lengths.cumsum(0) - lengths  # rows of the episodes before
    return (torch.repeat_interleave(starts - before, lengths) + torch.arange(int(lengths.sum()))).remainder(capacity)


def _pack(
    tensors: Mapping[str, Tensor], episodes: Sequence[tuple[int, int]], capacity: int, first: int
) -> dict[str, Any]:
    """A part, see `Replay.part`, of the ring's `tensors`; the first episode has the number `first`."""
    starts, steps = torch.tensor(episodes, dtype=torch.long).reshape(-1, 2).unbind(1)
    slots = _slots(starts, steps, capacity)
    rows = {name: tensor[slots.to(tensor.device)].cpu() for name, tensor in tensors.items()}
    return {"first": first, "steps": steps.clone(), **rows}


def _held(part: Mapping[str, Any], oldest: int, names: Sequence[str]) -> dict[str, Any]:
    """The tensors `names` of the part, without its episodes before number `oldest`. A part without plans gets unknown
    ones."""
    skipped = min(max(0, oldest - int(part["first"])), len(part["steps"]))
    begin = int(part["steps"][:skipped].sum()) + skipped
    rows = {name: part[name][begin:] for name in names if name in part}
    if len(rows) < len(names):
        plans = Plans.unknown(*rows["actions"].shape)
        rows |= zip(_PLANS, map(torch.from_numpy, (plans.random, plans.mean, plans.std)), strict=True)
    return {"first": int(part["first"]) + skipped, "steps": part["steps"][skipped:], **rows}


def _unpack(part: Mapping[str, Any]) -> Iterator[Episode]:
    """The episodes of a part."""
    begin = 0
    for steps in part["steps"].tolist():
        inner = slice(begin, begin + steps)
        observations = part["observations"][begin : begin + steps + 1].numpy()
        plans = Plans(*(part[name][inner].numpy() for name in _PLANS)) if "random" in part else None
        actions, rewards, terminated, truncated = (part[name][inner].numpy() for name in _TENSORS[1:])
        yield Episode(observations, actions, rewards, terminated, truncated, plans)
        begin += steps + 1
