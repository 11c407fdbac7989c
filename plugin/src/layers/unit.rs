//! What can go from a layer as a whole.

/// A part of a layer that goes as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// The whole layer.
    Layer,
    /// Its attention, with the norm before it.
    Attention,
    /// Its router and experts, shared ones included, with the norm before them.
    Moe,
}

impl Unit {
    /// All of them, the largest first.
    pub const ALL: [Self; 3] = [Self::Layer, Self::Attention, Self::Moe];

    /// The flag that says how many go.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Layer => "--drop-layers",
            Self::Attention => "--drop-attention",
            Self::Moe => "--drop-moe",
        }
    }

    /// What several are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Attention => "attention sublayers",
            Self::Moe => "MoE sublayers",
        }
    }

    /// Short, for names of files and models: `drop`, `dropattn`, `dropmoe`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Layer => "drop",
            Self::Attention => "dropattn",
            Self::Moe => "dropmoe",
        }
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Layer => "layer",
            Self::Attention => "attention sublayer",
            Self::Moe => "MoE sublayer",
        })
    }
}
