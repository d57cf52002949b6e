"""An independent, slow TD-MPC2 in float64 numpy: one vector at a time, loops over time, heads and bins.

It shares no code with the package; it only reads the package's weights. Written from the paper's equations and the
reference layer lists, it is what the fast implementation is compared with.
"""

from __future__ import annotations

import numpy as np


def mish(x):
    return x * np.tanh(np.logaddexp(0.0, x))


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + eps) * weight + bias


def simnorm(x, group):
    out = np.empty_like(x)
    for start in range(0, len(x), group):
        part = np.exp(x[start : start + group] - x[start : start + group].max())
        out[start : start + group] = part / part.sum()
    return out


class Sequential:
    """Linear, LayerNorm, … of an `nn.Sequential`, by the numbers of its state dict."""

    def __init__(self, state, prefix, activation, *, ends_in_plain_norm=False):
        self.activation = activation
        self.ends_in_plain_norm = ends_in_plain_norm
        self.layers = []
        numbers = sorted({int(k[len(prefix) :].split(".")[0]) for k in state if k.startswith(prefix)})
        for n in numbers:
            self.layers.append((state[f"{prefix}{n}.weight"], state[f"{prefix}{n}.bias"]))

    def __call__(self, x):
        """Linear layers have 2-D weights, norms 1-D; the activation follows every norm (or every inner Linear)."""
        for i, (weight, bias) in enumerate(self.layers):
            if weight.ndim == 2:
                x = weight @ x + bias
                if self.activation == "relu" and i + 1 < len(self.layers):
                    x = np.maximum(x, 0)
            else:
                x = layer_norm(x, weight, bias)
                if not (self.ends_in_plain_norm and i + 1 == len(self.layers)):
                    x = mish(x)
        return x


def weights_of(model):
    """A model's state as float64 arrays."""
    return {k: v.detach().cpu().double().numpy() for k, v in model.state_dict().items()}


class Reference:
    """All parts of a `WorldModel`, evaluated for one vector at a time."""

    def __init__(self, model, config, state=None):
        """`state`: weights in the place of the model's own."""
        state = weights_of(model) if state is None else state
        self.config = config
        self.encoder_net = Sequential(state, "encoder.net.", "mish", ends_in_plain_norm=config.encoder_norm)
        self.dynamics_net = Sequential(state, "dynamics.net.", "mish", ends_in_plain_norm=True)
        self.reward_net = Sequential(state, "reward.net.", "mish")
        self.termination_net = Sequential(state, "termination.mlp.", "relu")
        self.policy_net = Sequential(state, "policy.net.", "mish")
        self.heads = {k: v for k, v in state.items() if k.startswith(("policy.mean", "policy.log"))}
        self.q_state = {k: v for k, v in state.items() if k.startswith(("q.", "q_target."))}
        self.bins = np.linspace(config.bin_low, config.bin_high, config.bins)

    def encode(self, observation):
        return simnorm(self.encoder_net(observation), self.config.simnorm_dim)

    def dynamics(self, z, a):
        return simnorm(self.dynamics_net(np.concatenate([z, a])), self.config.simnorm_dim)

    def reward_logits(self, z, a):
        return self.reward_net(np.concatenate([z, a]))

    def termination_logit(self, z):
        return self.termination_net(z)[0]

    def q_logits(self, z, a, head, ensemble="q"):
        x = np.concatenate([z, a])
        s = self.q_state
        layers = self.config.hidden_layers
        for i in range(layers):
            x = x @ s[f"{ensemble}.weights.{i}"][head] + s[f"{ensemble}.biases.{i}"][head, 0]
            x = layer_norm(x, s[f"{ensemble}.norm_weights.{i}"][head, 0], s[f"{ensemble}.norm_biases.{i}"][head, 0])
            x = mish(x)
        return x @ s[f"{ensemble}.weights.{layers}"][head] + s[f"{ensemble}.biases.{layers}"][head, 0]

    def decode(self, logits):
        p = np.exp(logits - logits.max())
        x = (p / p.sum() * self.bins).sum()
        return np.sign(x) * (np.exp(abs(x)) - 1)

    def two_hot(self, value):
        x = np.clip(np.sign(value) * np.log(1 + abs(value)), self.bins[0], self.bins[-1])
        target = np.zeros(len(self.bins))
        for k in range(len(self.bins) - 1):
            if self.bins[k] <= x <= self.bins[k + 1]:
                share = (x - self.bins[k]) / (self.bins[k + 1] - self.bins[k])
                target[k], target[k + 1] = 1 - share, share
                break
        return target

    def cross_entropy(self, logits, value):
        log_p = logits - logits.max()
        log_p = log_p - np.log(np.exp(log_p).sum())
        return -(self.two_hot(value) * log_p).sum()

    def policy(self, z, eps):
        """Action, Gaussian log-density, squashed log-density for the noise `eps`."""
        h = self.policy_net(z)
        mean = self.heads["policy.mean_head.weight"] @ h + self.heads["policy.mean_head.bias"]
        raw = self.heads["policy.log_std_head.weight"] @ h + self.heads["policy.log_std_head.bias"]
        low, high = self.config.log_std_min, self.config.log_std_max
        log_std = low + 0.5 * (high - low) * (np.tanh(raw) + 1)
        gaussian = (-0.5 * eps**2 - log_std - 0.9189385).sum()
        action = np.tanh(mean + eps * np.exp(log_std))
        squashed = gaussian - np.log(np.maximum(1 - action**2, 0) + 1e-6).sum()
        return action, gaussian, squashed

    def td_target(self, next_observation, reward, terminated, discount, heads, eps):
        z = self.encode(next_observation)
        action, _, _ = self.policy(z, eps)
        value = min(self.decode(self.q_logits(z, action, h, "q_target")) for h in heads)
        return reward + discount * (1 - terminated) * value

    def targets(self, batch, draws, discount):
        """TD targets (H, B) of `td_steps` steps; `batch` and `draws` are dictionaries of arrays."""
        config, (window, size) = self.config, batch["rewards"].shape
        horizon = window - config.td_steps + 1
        valid = batch.get("valid", np.ones((window, size)))
        found = np.zeros((horizon, size))
        for b in range(size):
            for t in range(horizon):
                for k in range(config.td_steps):
                    at = t + k
                    found[t, b] += discount**k * batch["rewards"][at, b]
                    last = k + 1 == config.td_steps or not valid[at + 1, b]
                    if batch["terminated"][at, b]:
                        break
                    if last:
                        z = self.encode(batch["observations"][at + 1, b])
                        action, _, _ = self.policy(z, draws["target"][at, b])
                        heads = draws["target_heads"]
                        value = min(self.decode(self.q_logits(z, action, h, "q_target")) for h in heads)
                        found[t, b] += discount ** (k + 1) * value
                        break
        return found

    def policy_loss(self, latents, batch, draws, scale):
        """Of latents (H + 1, B, L); `scale` is the one to be used."""
        config, (states, size) = self.config, latents.shape[:2]
        valid = batch.get("valid", np.ones((states - 1, size)))
        total = 0.0
        for t in range(states):
            for b in range(size):
                if t > 0 and not valid[t - 1, b]:
                    continue
                action, gaussian, squashed = self.policy(latents[t, b], draws["policy"][t, b])
                q = np.mean([self.decode(self.q_logits(latents[t, b], action, h)) for h in draws["policy_heads"]])
                entropy = -squashed if config.entropy == "squashed" else -gaussian * len(action)
                objective = q / scale + config.entropy_weight * entropy
                known = t + 1 < states and valid[t, b] and config.policy_prior != "value"
                if known and not batch["random"][t, b]:
                    objective += self.prior(action, batch, t, b, scale)
                total -= config.rho**t * objective / states / size
        return total

    def prior(self, action, batch, t, b, scale):
        if self.config.policy_prior == "cloned":
            return -((action - batch["actions"][t, b]) ** 2).mean()
        if scale <= 2:
            return 0.0
        log_density = 0.0
        for a, mean, std in zip(action, batch["plan_mean"][t, b], batch["plan_std"][t, b], strict=True):
            spread = max(std, 0.05)
            log_density += -0.5 * ((a - mean) / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)
        return len(action) ** 2 / 61 * log_density / scale

    def model_loss(self, batch, targets, next_z):
        """The total of a batch with ends and masks, the targets and the encoded next observations held fixed."""
        horizon, config = len(targets), self.config
        valid = batch.get("valid", np.ones(batch["rewards"].shape))
        found = self.losses(
            *(batch[name][: horizon + (name == "observations")] for name in ("observations", "actions", "rewards")),
            batch["terminated"][:horizon],
            targets,
            next_z=next_z,
            valid=valid,
        )
        weights = {name: getattr(config, f"{name}_weight") for name in ("consistency", "reward", "value")}
        weights["termination"] = config.termination_weight if config.termination else 0.0
        return sum(weights[name] * found[name] for name in weights)

    def losses(self, observations, actions, rewards, terminated, targets, *, next_z=None, valid=None):
        """The four unweighted losses of a batch, time first, without dropout."""
        config, (horizon, batch) = self.config, actions.shape[:2]
        total = {"consistency": 0.0, "reward": 0.0, "value": 0.0, "termination": 0.0}
        for b in range(batch):
            z = self.encode(observations[0, b])
            for t in range(horizon):
                if valid is not None and not valid[t, b]:
                    break
                weight = config.rho**t / horizon / batch
                a = actions[t, b]
                total["reward"] += weight * self.cross_entropy(self.reward_logits(z, a), rewards[t, b])
                for h in range(config.q_heads):
                    ce = self.cross_entropy(self.q_logits(z, a, h), targets[t, b])
                    total["value"] += weight * ce / config.q_heads
                z = self.dynamics(z, a)
                wanted = self.encode(observations[t + 1, b]) if next_z is None else next_z[t, b]
                total["consistency"] += weight * ((z - wanted) ** 2).mean()
                if not config.termination:
                    continue
                p = 1 / (1 + np.exp(-self.termination_logit(z)))
                label = terminated[t, b]
                bce = -(label * np.log(p) + (1 - label) * np.log(1 - p))
                total["termination"] += bce / horizon / batch
        return total

    def sequence_value(self, observation, actions, discount, heads, eps, pessimism=0.0):
        """Estimated return of one action sequence (H, A) from one observation."""
        z = self.encode(observation)
        value, done = 0.0, False
        for t, a in enumerate(actions):
            if not done:
                value += discount**t * self.decode(self.reward_logits(z, a))
            z = self.dynamics(z, a)
            done = done or (self.config.termination and 1 / (1 + np.exp(-self.termination_logit(z))) > 0.5)
        a, _, _ = self.policy(z, eps)
        values = [self.decode(self.q_logits(z, a, h)) for h in range(self.config.q_heads)]
        terminal = np.mean([values[h] for h in heads]) - pessimism * np.std(values)
        return value + discount ** len(actions) * (0.0 if done else terminal)
