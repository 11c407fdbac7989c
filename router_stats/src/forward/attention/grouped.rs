//! Grouped-query attention with optional biases, query/key norms and clipping.

use candle_core::Tensor;

use super::Module;
use crate::family::{GroupedQuery, QkNorm, Topology};
use crate::forward::batch::Batch;
use crate::forward::causal::{attend, Heads};
use crate::forward::rotary::{rotate, Turn};
use crate::forward::rows;
use crate::forward::weights::Linear;
use crate::Result;

/// The weights of one block's attention.
#[derive(Debug)]
pub(in crate::forward) struct Grouped {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Weights of the RMS norms of queries and keys: [d] if they are over a
    /// head, else as wide as all heads.
    qk_norm: Option<[Tensor; 2]>,
    clip: Option<f32>,
    heads: Heads,
    turn: Turn,
    eps: f32,
}

impl Grouped {
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(
        module: &Module<'_>,
        spec: &GroupedQuery,
        topology: &Topology,
        layer: usize,
    ) -> Result<Self> {
        let hidden = topology.hidden;
        let attention = &topology.attention;
        let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let norms =
            |q, k| -> Result<_> { Ok([module.norm("q_norm", q)?, module.norm("k_norm", k)?]) };
        Ok(Self {
            q: module.linear("q_proj", [q_width, hidden], spec.qkv_bias)?,
            k: module.linear("k_proj", [kv_width, hidden], spec.qkv_bias)?,
            v: module.linear("v_proj", [kv_width, hidden], spec.qkv_bias)?,
            o: module.linear("o_proj", [hidden, q_width], spec.o_bias)?,
            qk_norm: match spec.qk_norm {
                None => None,
                Some(QkNorm::Head) => Some(norms(spec.head_dim, spec.head_dim)?),
                Some(QkNorm::Whole) => Some(norms(q_width, kv_width)?),
            },
            clip: spec.clip.map(|clip| clip as f32),
            heads: Heads {
                queries: spec.heads,
                keys: spec.kv_heads,
                dim: spec.head_dim,
                value_dim: spec.head_dim,
                scale: attention.scale,
                window: attention.windows[layer],
            },
            turn: Turn {
                head: spec.head_dim,
                first: 0,
                dim: attention.rotary.dim,
                pairs: attention.rotary.pairs,
            },
            eps: topology.norm.eps as f32,
        })
    }

    /// [N, H] → [N, H]
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let q = self.place(self.q.forward(x)?, 0, batch)?;
        let k = self.place(self.k.forward(x)?, 1, batch)?;
        let v = self.clipped(self.v.forward(x)?)?;
        self.o
            .forward(&attend(&q, &k, &v, &batch.starts, self.heads)?)
    }

    /// Normalises by the norm of this index, clips and turns queries or keys
    /// [N, heads·d], in this order.
    fn place(&self, x: Tensor, norm: usize, batch: &Batch) -> Result<Tensor> {
        let norm = self.qk_norm.as_ref().map(|norms| &norms[norm]);
        // A norm over heads with nothing after it but the turn is part of it.
        let (alone, fused) = match norm {
            Some(norm) if self.clip.is_none() && norm.elem_count() == self.turn.head => {
                (None, Some(norm))
            }
            norm => (norm, None),
        };
        let x = match alone {
            None => x,
            Some(norm) => {
                let rows = x.reshape(((), norm.elem_count()))?;
                rows::rms_norm(&rows, norm, self.eps)?.reshape(x.shape())?
            }
        };
        rotate(&self.clipped(x)?, fused, self.eps, self.turn, batch)
    }

    fn clipped(&self, x: Tensor) -> Result<Tensor> {
        Ok(match self.clip {
            None => x,
            Some(clip) => x.clamp(-clip, clip)?,
        })
    }
}
