//! The feed-forward part of a block: a dense MLP, or a router and its experts.

use candle_core::{Device, Tensor};

use super::event::Event;
use super::rounding::Kind;
use super::routing::route;
use super::rows;
use super::weights::Source;
use crate::checkpoint::ExpertReader;
use crate::family::{MlpSpec, MoeSpec, Names, Projection, Topology};
use crate::Result;

/// The feed-forward part of one block.
pub(super) enum Mlp<'a> {
    Dense(GatedMlp),
    Moe(Box<Moe<'a>>),
}

impl<'a> Mlp<'a> {
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(
        source: Source<'a>,
        names: &'static Names,
        topology: &Topology,
        layer: usize,
    ) -> Result<Self> {
        let hidden = topology.hidden;
        let load_mlp = |module: &str, intermediate: usize| {
            let load = |projection, shape: [usize; 2]| {
                let name = format!("{module}{}", names.projection(projection));
                source.projection(&names.in_block(layer, &name), shape)
            };
            let gate = load(Projection::Gate, [intermediate, hidden])?;
            let up = load(Projection::Up, [intermediate, hidden])?;
            let down = load(Projection::Down, [hidden, intermediate])?;
            let gate_up = Tensor::cat(&[gate, up], 0)?;
            Ok::<_, crate::Error>(GatedMlp { gate_up, down })
        };
        match &topology.mlps[layer] {
            MlpSpec::Dense { intermediate } => {
                Ok(Self::Dense(load_mlp(names.dense, *intermediate)?))
            }
            MlpSpec::Moe(spec) => {
                let load =
                    |name, shape: &[usize]| source.tensor(&names.in_block(layer, name), shape);
                let shared = match (spec.shared, names.shared) {
                    (Some(shared), Some(module)) => Some(Shared {
                        mlp: load_mlp(module, shared.intermediate)?,
                        gate: match names.shared_gate.filter(|_| shared.gated) {
                            Some(gate) => Some(load(gate, &[1, hidden])?),
                            None => None,
                        },
                    }),
                    _ => None,
                };
                Ok(Self::Moe(Box::new(Moe {
                    router: load(names.router, &[spec.experts, hidden])?,
                    bias: correction_bias(source, names, layer, spec)?,
                    shared,
                    experts: ExpertReader::open(source.checkpoint, names, layer, spec, hidden)?,
                    spec: spec.clone(),
                    hidden,
                    source,
                    names,
                    layer,
                })))
            }
        }
    }
}

/// What a router adds to its scores for the choice of experts: [E], if its
/// rule has it.
fn correction_bias(
    source: Source<'_>,
    names: &Names,
    layer: usize,
    spec: &MoeSpec,
) -> Result<Option<Vec<f32>>> {
    let name = names.router_bias.filter(|_| spec.router.correction_bias);
    let load = |name| {
        let source = Source {
            device: &Device::Cpu,
            ..source
        };
        let bias = source.tensor(&names.in_block(layer, name), &[spec.experts])?;
        Ok(bias.to_vec1()?)
    };
    name.map(load).transpose()
}

/// down(silu(gate(x)) ∘ up(x)).
pub(super) struct GatedMlp {
    /// [2I, H], gate rows first.
    gate_up: Tensor,
    /// [H, I]
    down: Tensor,
}

impl GatedMlp {
    /// [n, H] → [n, H]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = rows::swiglu(&x.matmul(&self.gate_up.t()?)?)?;
        Ok(inner.matmul(&self.down.t()?)?)
    }
}

/// Experts that every token passes through, as one MLP.
struct Shared {
    mlp: GatedMlp,
    /// [1, H]
    gate: Option<Tensor>,
}

impl Shared {
    /// mlp(x), times σ(gate·x) if there is a gate: [n, H] → [n, H].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let output = self.mlp.forward(x)?;
        Ok(match &self.gate {
            None => output,
            Some(gate) => {
                output.broadcast_mul(&candle_nn::ops::sigmoid(&x.matmul(&gate.t()?)?)?)?
            }
        })
    }
}

/// A router and its experts. Experts stay in the checkpoint and are read one
/// at a time, when there are rows for them.
pub(super) struct Moe<'a> {
    /// [E, H]
    router: Tensor,
    /// [E], see [`route`].
    bias: Option<Vec<f32>>,
    shared: Option<Shared>,
    experts: ExpertReader<'a>,
    spec: MoeSpec,
    hidden: usize,
    source: Source<'a>,
    names: &'static Names,
    layer: usize,
}

impl Moe<'_> {
    /// `residual` + Σ_j g_j(x) f_j(x) over the experts each row is routed to,
    /// and what the shared experts add, all [N, H].
    ///
    /// Experts run one after the other, each on all its rows at once; only
    /// those with rows are read.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        residual: &Tensor,
        keep: Option<&[bool]>,
        emit: &mut dyn FnMut(&Event<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        let logits = x
            .matmul(&self.router.t()?)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let routes = route(
            &self.spec.router,
            self.spec.experts,
            logits,
            self.bias.as_deref(),
            keep,
        );
        emit(&Event::Routing { routes: &routes })?;
        let mut sum = match &self.shared {
            None => residual.copy()?,
            Some(shared) => rows::add(shared.forward(x)?, residual)?,
        };
        for expert in 0..self.spec.experts {
            let (assigned, gates) = routes.assigned(expert);
            if assigned.is_empty() {
                continue;
            }
            let output = self
                .read(expert, x.device())?
                .forward(&rows::gather(x, assigned)?)?;
            emit(&Event::Expert {
                expert,
                rows: assigned,
                gates,
                output: &output,
            })?;
            sum = rows::scatter_add(sum, assigned, gates, &output)?;
        }
        Ok(sum)
    }

    /// Reads `experts` only to check that their weights are finite.
    ///
    /// # Errors
    /// `NonFinite` names the tensor.
    pub(super) fn check(&self, experts: impl Iterator<Item = usize>) -> Result<()> {
        let (mut gate_up, mut down) = self.buffers();
        for expert in experts {
            self.experts.read_f32(expert, &mut gate_up, &mut down)?;
        }
        Ok(())
    }

    fn read(&self, expert: usize, device: &Device) -> Result<GatedMlp> {
        let (mut gate_up, mut down) = self.buffers();
        self.experts.read_f32(expert, &mut gate_up, &mut down)?;
        let (inner, hidden) = (self.spec.intermediate, self.hidden);
        let (gate, up) = gate_up.split_at_mut(inner * hidden);
        for (projection, values) in Projection::ALL.into_iter().zip([gate, up, &mut down]) {
            let name = || self.names.expert(self.layer, expert, projection);
            let shape = match projection {
                Projection::Gate | Projection::Up => [inner, hidden],
                Projection::Down => [hidden, inner],
            };
            self.source.round(values, &shape, Kind::Projection, name)?;
        }
        Ok(GatedMlp {
            gate_up: Tensor::from_vec(gate_up, (2 * inner, hidden), device)?,
            down: Tensor::from_vec(down, (hidden, inner), device)?,
        })
    }

    fn buffers(&self) -> (Vec<f32>, Vec<f32>) {
        let matrix = self.spec.intermediate * self.hidden;
        (vec![0f32; 2 * matrix], vec![0f32; matrix])
    }
}
