"""Connector and ViT decoder (paper, sections 2.1.1 and 6.1; spec 2.4 and 3.4).

The connector turns hidden states of the planner into context for the renderer and into conditions
for the decoder; the decoder turns a condition and noise into one visual feature, token by token,
by flow matching. Parameter names are those of the released checkpoints.

n tokens, D hidden width, V width of a visual feature, W decoder width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bernini.config import HeadsConfig
from bernini.flow import decoder_schedule
from bernini.renderer.layers import RMSNorm, timestep_features

EPS = 1e-6
TIME_WIDTH = 256


class Connector(nn.Module):
    """`proj_gen`: hidden → renderer context; `pred_vit`: hidden → decoder condition."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        hidden, context, vit = config.hidden, config.context_dim, config.vit_dim
        self.proj_gen = nn.Sequential(
            nn.Linear(hidden, context), nn.GELU(), RMSNorm(context, eps=EPS), nn.Linear(context, context)
        )
        self.pred_vit = nn.Sequential(
            nn.Linear(hidden, vit),
            nn.GELU(),
            nn.Linear(vit, vit),
            RMSNorm(vit, eps=EPS),
            nn.Linear(vit, vit),
        )

    def for_renderer(self, hidden: Tensor) -> Tensor:
        """`[…, D]` → `[…, context_dim]`."""
        return self.proj_gen(hidden)

    def for_decoder(self, hidden: Tensor) -> Tensor:
        """`[…, D]` → `[…, V]`."""
        return self.pred_vit(hidden)


class TimeEmbedding(nn.Module):
    """Timesteps 0…1000 → `[n, W]`."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.mlp(timestep_features(timesteps, TIME_WIDTH).to(self.mlp[0].weight.dtype))


class ResidualBlock(nn.Module):
    """`x + gate · mlp(norm(x)·(1 + scale) + shift)`, all three from the condition."""

    def __init__(self, width: int):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    """Modulated norm without weights, then a linear to the visual feature."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift)


class DecoderNet(nn.Module):
    """Velocity of one visual feature from its noisy value, its timestep and its condition."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        width, vit = config.decoder_width, config.vit_dim
        self.input_proj, self.cond_embed = nn.Linear(vit, width), nn.Linear(vit, width)
        self.time_embed = TimeEmbedding(width)
        self.res_blocks = nn.ModuleList([ResidualBlock(width) for _ in range(config.decoder_depth)])
        self.final_layer = FinalLayer(width, vit)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """x and condition `[n, V]`, timesteps `[n]` in 0…1000 → velocity (noise - clean) `[n, V]`."""
        y = self.time_embed(timesteps) + self.cond_embed(condition)
        x = self.input_proj(x)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


class ViTDecoder(nn.Module):
    """Samples visual features."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.net = DecoderNet(config)
        self.shift = config.decoder_shift

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        conditions: dict[str, Tensor],
        *,
        num_steps: int,
        source_guidance: float,
        prompt_guidance: float = 1.0,
        path: list[Tensor] | None = None,
    ) -> Tensor:
        """Euler steps from `noise [n, V]`; `conditions` of cond, and of prompt_only, nothing when guided.

        nothing + prompt_guidance·(prompt_only - nothing) + source_guidance·(cond - prompt_only),
        or without prompt_only nothing + source_guidance·(cond - nothing). At 1 or below only cond.
        """
        schedule, x = decoder_schedule(num_steps, self.shift), noise
        names = list(conditions) if source_guidance > 1 else ["cond"]
        stacked = torch.cat([conditions[n] for n in names])
        for i, timestep in enumerate(schedule.timesteps):
            times = timestep.to(x.device).expand(len(stacked))
            velocities = self.net(x.repeat(len(names), 1), times, stacked).chunk(len(names))
            velocity = combine(dict(zip(names, velocities, strict=True)), source_guidance, prompt_guidance)
            x = x + (schedule.sigmas[i + 1] - schedule.sigmas[i]).to(x.dtype) * velocity
            if path is not None:
                path.append(x)
        return x


def combine(velocities: dict[str, Tensor], source_guidance: float, prompt_guidance: float) -> Tensor:
    """Guidance of the decoder over its one, two or three branches."""
    cond = velocities["cond"]
    if "nothing" not in velocities:
        return cond
    nothing = velocities["nothing"]
    if "prompt_only" not in velocities:
        return nothing + source_guidance * (cond - nothing)
    prompt_only = velocities["prompt_only"]
    return nothing + prompt_guidance * (prompt_only - nothing) + source_guidance * (cond - prompt_only)
