//! A directory that mistral.rs 0.8.1 loads as UQFF, and that may hold a
//! different number of experts in every layer.
//!
//! Safetensors are checked against the one number of experts that
//! `config.json` states; UQFF artifacts are not. So every layer is given as
//! many places as the widest one has, and the places of experts that are not
//! there hold artifacts of one number, which no token reaches:
//!
//! * Mixtral's router is an artifact itself and has a row per kept expert;
//! * routers with a bias for the choice of experts say −10⁹ there;
//! * Qwen3-MoE gets a channel whose value is known, see [`channel`].
//!
//! Linear layers are artifacts, numbered in the order in which the engine asks
//! for them; everything else is `residual.safetensors`. Does not know how an
//! artifact is spelled (see [`encode`]).

mod artifacts;
mod channel;
pub(super) mod encode;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::quantized::GgmlDType;
use router_stats::family::{Family, Keep, MoeSpec, Topology, Uneven, SCALE_SUFFIX};
use router_stats::forward::{Quantization, Rounding};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::{self, Output, Source, Widened};
use super::{Cut, Layout};
use crate::{Error, Result};

pub(super) use artifacts::Artifact;

/// File of the tensors that are no linear layers.
pub(super) const RESIDUAL: &str = "residual.safetensors";

/// The bias of a place without an expert.
const ABSENT: f32 = -1e9;

/// How [`Layout::Uqff`] stores linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uqff {
    /// As which numbers.
    pub weights: UqffWeights,
    /// Where the engine is to run: the artifacts are others.
    pub device: UqffDevice,
}

/// The numbers of linear layers, routers excepted. A matrix whose rows no block divides takes
/// smaller blocks, or f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UqffWeights {
    /// As they are: the engine computes in the same type. Blocks of GGUF stay
    /// blocks.
    #[default]
    Float,
    /// 8 bits and a scale for 32 weights.
    Q8_0,
    /// 6 bits, in blocks of 256.
    Q6K,
    /// 5 bits, in blocks of 256.
    Q5K,
    /// 4 bits, in blocks of 256.
    Q4K,
    /// 3 bits, in blocks of 256.
    Q3K,
    /// 2 bits, in blocks of 256.
    Q2K,
}

/// Where the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UqffDevice {
    /// One artifact per expert and projection; computes in f32.
    #[default]
    Cpu,
    /// One artifact per layer and projection; computes in bf16.
    Gpu,
}

impl Uqff {
    /// What the engine computes in.
    fn float(self) -> Dtype {
        match self.device {
            UqffDevice::Cpu => Dtype::F32,
            UqffDevice::Gpu => Dtype::BF16,
        }
    }

    /// What the engine must compute in: `f32` or `bf16`.
    pub fn computes_in(self) -> &'static str {
        match self.device {
            UqffDevice::Cpu => "f32",
            UqffDevice::Gpu => "bf16",
        }
    }

    /// What names of artifact files begin with.
    fn stem(self) -> &'static str {
        match (self.weights, self.device) {
            (UqffWeights::Float, UqffDevice::Cpu) => "f32",
            (UqffWeights::Float, UqffDevice::Gpu) => "bf16",
            (weights, _) => weights.name(),
        }
    }

    /// The first file of artifacts; the engine finds the others by its name.
    pub fn first_file(self) -> String {
        self.file(0)
    }

    pub(super) fn file(self, index: usize) -> String {
        format!("{}-{index}.uqff", self.stem())
    }
}

impl UqffDevice {
    /// `cpu` or `gpu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

impl UqffWeights {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Float,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q3K,
        Self::Q2K,
    ];

    /// The one called `name`, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|it| it.name().eq_ignore_ascii_case(name))
    }

    /// `float` or `q4k`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6k",
            Self::Q5K => "q5k",
            Self::Q4K => "q4k",
            Self::Q3K => "q3k",
            Self::Q2K => "q2k",
        }
    }

    /// The blocks of rows of so many numbers; none for numbers as they are.
    pub(super) fn blocks(self, width: usize) -> Option<GgmlDType> {
        let quantization = self.quantization()?;
        Some(quantization.row_blocks(width).unwrap_or(GgmlDType::F32))
    }

    /// The type of their blocks; none for numbers as they are.
    pub fn quantization(self) -> Option<Quantization> {
        Some(match self {
            Self::Float => return None,
            Self::Q8_0 => Quantization::Q8_0,
            Self::Q6K => Quantization::Q6K,
            Self::Q5K => Quantization::Q5K,
            Self::Q4K => Quantization::Q4K,
            Self::Q3K => Quantization::Q3K,
            Self::Q2K => Quantization::Q2K,
        })
    }

    /// What it does to the weights of a native forward pass of what `keep`
    /// leaves; nothing for numbers as they are.
    pub fn rounding(
        self,
        family: &dyn Family,
        topology: &Topology,
        keep: &Keep,
    ) -> Option<Rounding> {
        let quantization = self.quantization()?;
        let engine = family.serving(topology).layout();
        let channel = engine.and_then(|engine| engine.uneven) == Some(Uneven::Channel);
        let uneven = keep.uniform_experts(topology).is_none();
        Some(Rounding::Rows {
            quantization,
            channels: if channel && uneven {
                channel::CHANNELS
            } else {
                0
            },
        })
    }
}

/// The tensors of the result.
pub(super) struct Files {
    /// Those of [`RESIDUAL`].
    pub(super) residual: Vec<Output>,
    /// The artifacts, named by their numbers.
    pub(super) artifacts: Vec<Output>,
}

/// What goes to which file.
///
/// # Errors
/// Those of [`layout::outputs`]; [`Error::NotServed`] for families and dtypes
/// that this does not work for.
pub(super) fn files(cut: &Cut<'_>, uqff: Uqff) -> Result<Files> {
    let route = route(cut)?;
    let mut tensors: BTreeMap<String, Output> = layout::outputs(cut)?
        .into_iter()
        .map(|output| (output.name.clone(), output))
        .collect();
    scaled(&mut tensors);
    match route {
        Uneven::Router => {}
        Uneven::Bias => biased(cut, &mut tensors),
        Uneven::Channel if is_uneven(cut) => channel::widen(cut, &mut tensors),
        Uneven::Channel => {}
    }
    let artifacts = artifacts::take(cut, uqff, route, &mut tensors)?;
    Ok(Files {
        residual: tensors.into_values().collect(),
        artifacts,
    })
}

/// Says in `config` what [`files`] has changed.
pub(super) fn spell(cut: &Cut<'_>, config: &mut Value) {
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
    }
    if is_uneven(cut) && matches!(route(cut), Ok(Uneven::Channel)) {
        channel::spell(cut, config);
    }
}

/// Fails unless the engine can load what `cut` leaves as UQFF.
///
/// # Errors
/// [`Error::NotServed`]
pub(super) fn check(cut: &Cut<'_>) -> Result<()> {
    route(cut).map(|_| ())
}

/// Fails if the engine reads the result and then cannot run it.
///
/// # Errors
/// [`Error::NotServed`]
pub(super) fn check_runs(cut: &Cut<'_>) -> Result<()> {
    let floats = Layout::Uqff(Uqff {
        weights: UqffWeights::Float,
        device: UqffDevice::Gpu,
    });
    match route(cut)? {
        Uneven::Bias | Uneven::Channel if cut.layout == floats => Err(refused(
            cut,
            "mistral.rs 0.8.1 runs UQFF experts of this family on a GPU only if they are \
             quantised, to q8_0 for one",
        )),
        _ => Ok(()),
    }
}

/// How the engine reads different numbers of experts.
///
/// # Errors
/// [`Error::NotServed`]
pub(super) fn route(cut: &Cut<'_>) -> Result<Uneven> {
    cut.check_numbers()?;
    let engine = cut.family.serving(cut.topology).layout();
    engine.and_then(|engine| engine.uneven).ok_or_else(|| {
        refused(
            cut,
            "mistral.rs 0.8.1 reads one number of experts for all layers of this family",
        )
    })
}

fn refused(cut: &Cut<'_>, reason: &'static str) -> Error {
    Error::NotServed {
        model: cut.checkpoint.name(),
        reason,
    }
}

/// The kept experts with as many in every MoE layer as the widest has: what
/// `config.json` is to say.
pub(super) fn levelled(cut: &Cut<'_>) -> Keep {
    let places = places(cut);
    let mut keep = cut.keep.clone();
    for &layer in &keep.layers {
        if cut.keep.moe(cut.topology, layer).is_some() {
            keep.experts[layer] = (0..places).collect();
        }
    }
    keep
}

/// Places for experts in every MoE layer of the result.
fn places(cut: &Cut<'_>) -> usize {
    let counts = moe_layers(cut).map(|(_, layer, _)| cut.keep.experts[layer].len());
    counts.max().unwrap_or(0)
}

fn is_uneven(cut: &Cut<'_>) -> bool {
    cut.keep.uniform_experts(cut.topology).is_none()
}

/// One flag per place of `layer`: whether the next kept expert is there. In
/// each group, places without an expert come last.
fn occupied(cut: &Cut<'_>, layer: usize, moe: &MoeSpec) -> Vec<bool> {
    let groups = moe.router.group_count();
    let (kept, places) = (cut.keep.experts[layer].len() / groups, places(cut) / groups);
    (0..groups)
        .flat_map(|_| (0..places).map(|place| place < kept))
        .collect()
}

/// Kept MoE layers with their indices in the result.
fn moe_layers<'a>(cut: &Cut<'a>) -> impl Iterator<Item = (usize, usize, &'a MoeSpec)> {
    let Cut { keep, topology, .. } = *cut;
    let layers = keep.layers.iter().enumerate();
    layers.filter_map(|(index, &layer)| Some((index, layer, keep.moe(topology, layer)?)))
}

/// Gives the routers a row, and their biases a number, for every place.
fn biased(cut: &Cut<'_>, tensors: &mut BTreeMap<String, Output>) {
    let names = cut.family.names();
    for (index, layer, moe) in moe_layers(cut) {
        let occupied = occupied(cut, layer, moe);
        for (router, added) in [(Some(names.router), 0.0), (names.router_bias, ABSENT)] {
            let Some(router) = router else { continue };
            edit(tensors, &names.in_block(index, router), |tensor| {
                let mut shape = tensor.shape.clone();
                shape[0] = occupied.len();
                let width = shape[1..].iter().product();
                Widened {
                    inner: tensor,
                    rows: occupied.clone(),
                    after: Vec::new(),
                    added: vec![added; width],
                }
                .output(shape)
            });
        }
    }
}

/// Turns fp8 weights with block scales to f32: no layer that is loaded as UQFF
/// reads the scales.
fn scaled(tensors: &mut BTreeMap<String, Output>) {
    tensors.retain(|name, _| !name.ends_with(SCALE_SUFFIX));
    tensors.values_mut().for_each(multiplied);
}

/// Turns an fp8 weight with block scales to f32.
pub(super) fn multiplied(tensor: &mut Output) {
    let stored = match &tensor.source {
        Source::Copy { tensor: stored } if tensor.dtype == Dtype::F8_E4M3 => stored.clone(),
        _ => return,
    };
    tensor.dtype = Dtype::F32;
    tensor.bytes = (tensor.shape.iter().product::<usize>() * 4) as u64;
    tensor.source = Source::Weight { tensor: stored };
}

/// Replaces a tensor by what `make` makes of it.
fn edit(tensors: &mut BTreeMap<String, Output>, name: &str, make: impl FnOnce(Output) -> Output) {
    if let Some(tensor) = tensors.remove(name) {
        tensors.insert(name.to_owned(), make(tensor));
    }
}

impl Widened {
    fn output(self, shape: Vec<usize>) -> Output {
        let dtype = self.inner.dtype;
        Output {
            name: self.inner.name.clone(),
            dtype,
            bytes: (shape.iter().product::<usize>() * (dtype.bitsize() / 8)) as u64,
            shape,
            source: Source::Widened(Box::new(self)),
        }
    }
}
