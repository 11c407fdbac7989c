//! Every tensor that a model of a given structure has.

use super::names::Projection;
use super::{
    GroupedQuery, Latent, MlpSpec, MoeSpec, Names, NormKind, Projections, QkNorm, Topology,
};

/// A tensor that the forward pass reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its whole name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Topology {
    /// Every tensor of a checkpoint of this structure that the forward pass
    /// reads, with experts one by one, as [`Family::names`](super::Family::names)
    /// spells them: neither vision towers nor block scales nor
    /// multi-token-prediction blocks.
    pub fn tensors(&self, names: &Names) -> Vec<Expected> {
        self.list(names, true)
    }

    /// Those of [`tensors`](Self::tensors) that are not of routed experts: few,
    /// however many experts a configuration claims.
    pub fn tensors_beside_experts(&self, names: &Names) -> Vec<Expected> {
        self.list(names, false)
    }

    fn list(&self, names: &Names, experts: bool) -> Vec<Expected> {
        let mut list = List(Vec::new());
        list.push(names.embedding, [self.vocab, self.hidden]);
        for (layer, mlp) in self.mlps.iter().enumerate() {
            let mut block = Block {
                topology: self,
                names,
                layer,
                list: &mut list,
            };
            block.norm(names.attention_norm);
            match &self.attention.projections {
                Projections::Grouped(query) => block.grouped(query),
                Projections::Latent(latent) => block.latent(latent),
            }
            block.norm(names.mlp_norm);
            match mlp {
                MlpSpec::Dense { intermediate } => block.mlp(names.dense, *intermediate),
                MlpSpec::Moe(moe) => {
                    block.router(moe);
                    if experts {
                        block.experts(moe);
                    }
                }
            }
        }
        list.norm(self, names.final_norm.to_owned());
        if !self.tied_head {
            list.push(names.head, [self.vocab, self.hidden]);
        }
        if self.head_bias {
            list.push(Names::bias_of(names.head), [self.vocab]);
        }
        list.0
    }

    /// Weights of the whole model; those that head and embedding share, once.
    pub fn parameters(&self, names: &Names) -> u64 {
        self.tensors(names)
            .iter()
            .map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }
}

struct List(Vec<Expected>);

impl List {
    fn push(&mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) {
        self.0.push(Expected {
            name: name.into(),
            shape: shape.into(),
        });
    }

    fn norm(&mut self, topology: &Topology, name: String) {
        if topology.norm.kind == NormKind::Layer {
            self.push(Names::bias_of(&name), [topology.hidden]);
        }
        self.push(name, [topology.hidden]);
    }
}

/// The tensors of one block.
struct Block<'a> {
    topology: &'a Topology,
    names: &'a Names,
    layer: usize,
    list: &'a mut List,
}

impl Block<'_> {
    fn push(&mut self, name: &str, shape: impl Into<Vec<usize>>) {
        self.list.push(self.names.in_block(self.layer, name), shape);
    }

    fn norm(&mut self, name: &str) {
        let name = self.names.in_block(self.layer, name);
        self.list.norm(self.topology, name);
    }

    /// `{module}.weight` [out, in] of the attention, and its bias if asked.
    fn linear(&mut self, module: &str, shape: [usize; 2], bias: bool) {
        let module = format!("{}{module}", self.names.attention);
        self.push(&format!("{module}.weight"), shape);
        if bias {
            self.push(&format!("{module}.bias"), [shape[0]]);
        }
    }

    /// A norm inside the attention.
    fn inner_norm(&mut self, module: &str, width: usize) {
        self.push(&format!("{}{module}.weight", self.names.attention), [width]);
    }

    fn grouped(&mut self, query: &GroupedQuery) {
        let hidden = self.topology.hidden;
        let [q, kv] = [query.heads, query.kv_heads].map(|heads| heads * query.head_dim);
        self.linear("q_proj", [q, hidden], query.qkv_bias);
        self.linear("k_proj", [kv, hidden], query.qkv_bias);
        self.linear("v_proj", [kv, hidden], query.qkv_bias);
        self.linear("o_proj", [hidden, q], query.o_bias);
        let widths = match query.qk_norm {
            None => return,
            Some(QkNorm::Head) => [query.head_dim; 2],
            Some(QkNorm::Whole) => [q, kv],
        };
        self.inner_norm("q_norm", widths[0]);
        self.inner_norm("k_norm", widths[1]);
    }

    fn latent(&mut self, latent: &Latent) {
        let (hidden, rotary) = (self.topology.hidden, self.topology.attention.rotary.dim);
        let (heads, rank) = (latent.heads, latent.kv_rank);
        let queries = heads * (latent.nope_dim + rotary);
        match latent.q_rank {
            None => self.linear("q_proj", [queries, hidden], false),
            Some(rank) => {
                self.linear("q_a_proj", [rank, hidden], latent.bias);
                self.inner_norm("q_a_layernorm", rank);
                self.linear("q_b_proj", [queries, rank], false);
            }
        }
        self.linear("kv_a_proj_with_mqa", [rank + rotary, hidden], latent.bias);
        self.inner_norm("kv_a_layernorm", rank);
        let keys_values = heads * (latent.nope_dim + latent.value_dim);
        self.linear("kv_b_proj", [keys_values, rank], false);
        self.linear("o_proj", [hidden, heads * latent.value_dim], latent.bias);
    }

    fn mlp(&mut self, module: &str, intermediate: usize) {
        for projection in Projection::ALL {
            let name = format!("{module}{}", self.names.projection(projection));
            let shape = self.shape(projection, intermediate);
            self.push(&name, shape);
        }
    }

    /// The router and the shared experts.
    fn router(&mut self, moe: &MoeSpec) {
        self.push(self.names.router, [moe.experts, self.topology.hidden]);
        if let Some(bias) = self
            .names
            .router_bias
            .filter(|_| moe.router.correction_bias)
        {
            self.push(bias, [moe.experts]);
        }
        if let (Some(shared), Some(module)) = (moe.shared, self.names.shared) {
            self.mlp(module, shared.intermediate);
            if let Some(gate) = self.names.shared_gate.filter(|_| shared.gated) {
                self.push(gate, [1, self.topology.hidden]);
            }
        }
    }

    fn experts(&mut self, moe: &MoeSpec) {
        for expert in 0..moe.experts {
            for projection in Projection::ALL {
                let name = self.names.expert(self.layer, expert, projection);
                self.list
                    .push(name, self.shape(projection, moe.intermediate));
            }
        }
    }

    fn shape(&self, projection: Projection, intermediate: usize) -> [usize; 2] {
        match projection {
            Projection::Gate | Projection::Up => [intermediate, self.topology.hidden],
            Projection::Down => [self.topology.hidden, intermediate],
        }
    }
}
