//! Grouped-query attention with rotary positions and optional query/key norms.

use candle_core::{Device, Tensor};

use super::batch::Batch;
use super::causal::{attend, Heads};
use super::rotary::rotate;
use super::weights::{self, Linear};
use crate::checkpoint::Checkpoint;
use crate::family::{Names, Projections, QkNorm, Topology};
use crate::Result;

/// The attention of one block.
#[derive(Debug)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// RMS norms over the width of a head.
    qk_norm: Option<[Tensor; 2]>,
    heads: Heads,
    eps: f32,
}

impl Attention {
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        names: &Names,
        topology: &Topology,
        layer: usize,
        device: &Device,
    ) -> Result<Self> {
        let Projections::Grouped(spec) = &topology.attention.projections else {
            unreachable!()
        };
        let hidden = topology.hidden;
        let module = |name: &str| names.in_block(layer, &format!("{}{name}", names.attention));
        let linear = |name: &str, out: usize, inputs: usize, bias: bool| {
            Linear::load(checkpoint, &module(name), [out, inputs], bias, device)
        };
        let norm = |name: &str| weights::load(checkpoint, &module(name), &[spec.head_dim], device);
        let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        Ok(Self {
            q: linear("q_proj", q_width, hidden, spec.qkv_bias)?,
            k: linear("k_proj", kv_width, hidden, spec.qkv_bias)?,
            v: linear("v_proj", kv_width, hidden, spec.qkv_bias)?,
            o: linear("o_proj", hidden, q_width, spec.o_bias)?,
            qk_norm: if spec.qk_norm == Some(QkNorm::Head) {
                Some([norm("q_norm.weight")?, norm("k_norm.weight")?])
            } else {
                None
            },
            heads: Heads {
                queries: spec.heads,
                keys: spec.kv_heads,
                dim: spec.head_dim,
                window: topology.attention.windows[layer],
            },
            eps: topology.norm.eps as f32,
        })
    }

    /// [N, H] → [N, H]
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let norm = |index: usize| self.qk_norm.as_ref().map(|norms| &norms[index]);
        let dim = self.heads.dim;
        let q = rotate(&self.q.forward(x)?, norm(0), self.eps, dim, batch)?;
        let k = rotate(&self.k.forward(x)?, norm(1), self.eps, dim, batch)?;
        let v = self.v.forward(x)?;
        self.o
            .forward(&attend(&q, &k, &v, &batch.starts, self.heads)?)
    }
}
