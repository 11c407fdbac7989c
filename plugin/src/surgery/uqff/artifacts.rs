//! Which linear layers become artifacts, in the order of the engine.

use std::collections::BTreeMap;

use router_stats::family::{MoeSpec, Names, Projection, Projections, Uneven};
use router_stats::Error as StatsError;
use safetensors::Dtype;

use super::super::layout::{Output, Source};
use super::super::Cut;
use super::encode::{self, Form};
use super::{occupied, refused, stored, Uqff, UqffDevice};
use crate::Result;

/// The layer that stands in the place of an absent expert: 1 × 1.
const NOBODY: [usize; 2] = [1, 1];

/// A linear layer, or the same one of several experts on top of each other.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::surgery) struct Artifact {
    /// How its numbers are stored.
    pub(in crate::surgery) form: Form,
    /// [out, in] or [experts, out, in].
    pub(in crate::surgery) shape: Vec<usize>,
    /// One matrix per expert; none is zeros.
    pub(in crate::surgery) parts: Vec<Option<Output>>,
    /// `[out]`
    pub(in crate::surgery) bias: Option<Output>,
}

/// Takes the linear layers out of `tensors`.
///
/// # Errors
/// [`MissingTensor`](StatsError::MissingTensor);
/// [`NotServed`](crate::Error::NotServed) for one that is too large.
pub(super) fn take(
    cut: &Cut<'_>,
    uqff: Uqff,
    route: Uneven,
    tensors: &mut BTreeMap<String, Output>,
) -> Result<Vec<Output>> {
    let mut taker = Taker {
        cut,
        uqff,
        tensors,
        artifacts: Vec::new(),
    };
    taker.head()?;
    for (index, &layer) in cut.keep.layers.iter().enumerate() {
        taker.attention(index)?;
        match cut.keep.moe(cut.topology, layer) {
            None => taker.mlp(index, cut.family.names().dense)?,
            Some(moe) => taker.experts(index, layer, moe, route)?,
        }
    }
    Ok(taker.artifacts)
}

/// Moves tensors to artifacts.
struct Taker<'a> {
    cut: &'a Cut<'a>,
    uqff: Uqff,
    tensors: &'a mut BTreeMap<String, Output>,
    artifacts: Vec<Output>,
}

impl Taker<'_> {
    fn names(&self) -> &'static Names {
        self.cut.family.names()
    }

    /// The head, which is the embedding if it is tied to it.
    fn head(&mut self) -> Result<()> {
        let names = self.names();
        let head = match self.tensors.get(names.embedding) {
            Some(embedding) if self.cut.topology.tied_head => embedding.clone(),
            _ => self.one(names.head)?,
        };
        // A copy of a tied head may be stored beside the embedding.
        self.tensors.remove(names.head);
        self.linear(head, None)
    }

    fn attention(&mut self, index: usize) -> Result<()> {
        let projections: &[&str] = match &self.cut.topology.attention.projections {
            Projections::Grouped(_) => &["q_proj", "k_proj", "v_proj", "o_proj"],
            Projections::Latent(latent) if latent.q_rank.is_some() => &[
                "q_a_proj",
                "q_b_proj",
                "kv_a_proj_with_mqa",
                "kv_b_proj",
                "o_proj",
            ],
            Projections::Latent(_) => &["q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
        };
        let module = self.names().attention;
        for projection in projections {
            self.named(index, &format!("{module}{projection}.weight"))?;
        }
        Ok(())
    }

    fn mlp(&mut self, index: usize, module: &str) -> Result<()> {
        let names = self.names();
        for matrix in [names.gate, names.up, names.down] {
            self.named(index, &format!("{module}{matrix}"))?;
        }
        Ok(())
    }

    fn experts(&mut self, index: usize, layer: usize, moe: &MoeSpec, route: Uneven) -> Result<()> {
        let names = self.names();
        let occupied = occupied(self.cut, layer, moe);
        if route == Uneven::Router {
            // A choice of experts is not worth the few bytes.
            let router = self.one(&names.in_block(index, names.router))?;
            let form = Form::exact(self.uqff.weights, self.uqff.float());
            self.push_as(form, router.shape.clone(), vec![Some(router)], None)?;
            // This engine's module stores the three in another order, on every device.
            self.each(
                index,
                &occupied,
                [Projection::Gate, Projection::Down, Projection::Up],
            )?;
        } else {
            match self.uqff.device {
                UqffDevice::Cpu => self.each(index, &occupied, Projection::ALL)?,
                UqffDevice::Gpu => self.stacked(index, &occupied)?,
            }
        }
        match names.shared {
            Some(module) if moe.shared.is_some() => self.mlp(index, module),
            _ => Ok(()),
        }
    }

    /// One artifact per place and projection.
    fn each(&mut self, index: usize, occupied: &[bool], order: [Projection; 3]) -> Result<()> {
        let mut expert = 0;
        for &is_there in occupied {
            for projection in order {
                if is_there {
                    let name = self.names().expert(index, expert, projection);
                    let matrix = self.one(&name)?;
                    self.linear(matrix, None)?;
                } else {
                    self.push(NOBODY.to_vec(), vec![None], None)?;
                }
            }
            expert += usize::from(is_there);
        }
        Ok(())
    }

    /// One artifact per projection. Places without an expert need zeros only
    /// where others follow.
    fn stacked(&mut self, index: usize, occupied: &[bool]) -> Result<()> {
        let places = occupied
            .iter()
            .rposition(|&it| it)
            .map_or(0, |last| last + 1);
        for projection in Projection::ALL {
            let mut expert = 0;
            let mut parts = Vec::with_capacity(places);
            for &is_there in &occupied[..places] {
                parts.push(if is_there {
                    expert += 1;
                    Some(self.one(&self.names().expert(index, expert - 1, projection))?)
                } else {
                    None
                });
            }
            let mut shape = vec![places];
            shape.extend(
                parts
                    .iter()
                    .flatten()
                    .next()
                    .map_or(&NOBODY[..], |it| &it.shape),
            );
            self.push(shape, parts, None)?;
        }
        Ok(())
    }

    /// A linear layer of a block with its bias, if it has one.
    fn named(&mut self, index: usize, weight: &str) -> Result<()> {
        let names = self.names();
        let matrix = self.one(&names.in_block(index, weight))?;
        let bias = names.in_block(index, &Names::bias_of(weight));
        let bias = self.tensors.remove(&bias);
        self.linear(matrix, bias)
    }

    fn one(&mut self, name: &str) -> Result<Output> {
        self.tensors.remove(name).ok_or_else(|| {
            StatsError::MissingTensor {
                path: self.cut.checkpoint.dir().to_path_buf(),
                tensor: name.to_owned(),
                expected: "a linear layer that the engine asks for".to_owned(),
            }
            .into()
        })
    }

    fn linear(&mut self, matrix: Output, bias: Option<Output>) -> Result<()> {
        self.push(matrix.shape.clone(), vec![Some(matrix)], bias)
    }

    fn push(
        &mut self,
        shape: Vec<usize>,
        parts: Vec<Option<Output>>,
        bias: Option<Output>,
    ) -> Result<()> {
        if let Some((blocks, parts)) = stored::parts(self.cut, &parts)? {
            return self.push_as(Form::Blocks(blocks), shape, parts, bias);
        }
        let form = Form::new(self.uqff.weights, self.uqff.float(), &shape);
        self.push_as(form, shape, parts, bias)
    }

    fn push_as(
        &mut self,
        form: Form,
        shape: Vec<usize>,
        parts: Vec<Option<Output>>,
        bias: Option<Output>,
    ) -> Result<()> {
        let artifact = Artifact {
            form,
            shape,
            parts,
            bias,
        };
        let Some(bytes) = encode::size(&artifact) else {
            return Err(refused(self.cut, "a UQFF artifact holds at most 4 GiB"));
        };
        self.artifacts.push(Output {
            name: self.artifacts.len().to_string(),
            dtype: Dtype::U8,
            shape: vec![bytes],
            bytes: bytes as u64,
            source: Source::Artifact(Box::new(artifact)),
        });
        Ok(())
    }
}
