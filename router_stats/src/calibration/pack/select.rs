//! Some sequences of a packed text, to be run by themselves.

use super::Sequences;

impl Sequences {
    /// The sequences at `indices`, in that order, with all domains. `documents`
    /// stay those of the whole text; the hash is of the selected sequences, so
    /// equal selections from texts under different budgets have the same.
    ///
    /// # Panics
    /// If an index is not below [`Sequences::len`].
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut selected = Self {
            tokens: Vec::new(),
            starts: vec![0],
            domains: Vec::with_capacity(indices.len()),
            document: Vec::with_capacity(indices.len()),
            names: self.names.clone(),
            weights: self.weights.clone(),
            documents: self.documents.clone(),
            seq_len: self.seq_len,
            seed: self.seed,
            hash: String::new(),
        };
        for &index in indices {
            selected.tokens.extend_from_slice(self.sequence(index));
            selected.starts.push(selected.tokens.len());
            selected.domains.push(self.domains[index]);
            selected.document.push(self.document[index]);
        }
        selected.hash = selected.digest(None, selected.tokens.len());
        selected
    }
}
