//! Statistics as criteria read them: a mixture of domains, layer by layer.

use super::{Stats, Table};
use crate::observer::{block, expert, routing, span, SEQUENCES, TOKENS};
use crate::{Error, Result};

/// Mixture-weighted sums of one layer; vectors have one entry per expert and
/// are empty for a dense layer.
///
/// N_j is the number of tokens routed to expert j, g_j(x) the gate value
/// applied, f_j(x) the expert's output before gating, z the router logits.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStats {
    /// Index of the layer.
    pub layer: usize,
    /// Experts, E.
    pub experts: usize,
    /// Tokens that passed the layer.
    pub tokens: f64,
    /// N_j.
    pub count: Vec<f64>,
    /// Σ g_j over routed tokens.
    pub gate: Vec<f64>,
    /// Σ g_j² over routed tokens.
    pub gate_sq: Vec<f64>,
    /// Σ p_j over all tokens, p the router's scores before the choice.
    pub soft_gate: Vec<f64>,
    /// Σ ‖f_j‖₂ over routed tokens.
    pub norm: Vec<f64>,
    /// Σ ‖f_j‖₂² over routed tokens.
    pub norm_sq: Vec<f64>,
    /// Σ g_j ‖f_j‖₂ over routed tokens.
    pub gated_norm: Vec<f64>,
    /// Σ (g_j ‖f_j‖₂)² over routed tokens.
    pub gated_norm_sq: Vec<f64>,
    /// max ‖f_j‖∞ over routed tokens of domains with a positive weight.
    pub max: Vec<f64>,
}

impl Stats {
    /// The sums of `layer` for a mixture of domains, one weight for each.
    ///
    /// # Errors
    /// [`Error::Structure`] if there is no such layer or the weights are not
    /// one non-negative number per domain, some positive;
    /// [`Error::MissingTable`].
    pub fn layer(&self, layer: usize, weights: &[f64]) -> Result<LayerStats> {
        self.check_weights(weights)?;
        let experts = self.experts(layer)?;
        let row = |name: &str| -> Result<Vec<f64>> {
            let mut row = self.table(name)?.mixture(&[layer], weights);
            row.truncate(experts);
            Ok(row)
        };
        Ok(LayerStats {
            layer,
            experts,
            tokens: total(self.table(TOKENS)?, weights),
            count: row(routing::COUNT)?,
            gate: row(routing::GATE)?,
            gate_sq: row(routing::GATE_SQ)?,
            soft_gate: row(routing::SOFT_GATE)?,
            norm: row(expert::NORM)?,
            norm_sq: row(expert::NORM_SQ)?,
            gated_norm: row(expert::GATED_NORM)?,
            gated_norm_sq: row(expert::GATED_NORM_SQ)?,
            max: row(expert::MAX)?,
        })
    }

    /// Σ ‖f_j − μ_j‖₂² of every expert of `layer` over its routed tokens, μ_j
    /// being its mean output in the mixture: Σ‖f‖² − ‖Σf‖² / N. MoNE scores
    /// experts by its root mean. It is not summed while the model runs, because
    /// the mean is only known afterwards and differs between mixtures. Zero for
    /// experts without tokens.
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn output_deviation(&self, layer: usize, weights: &[f64]) -> Result<Vec<f64>> {
        self.check_weights(weights)?;
        let experts = self.experts(layer)?;
        let counts = self.table(routing::COUNT)?.mixture(&[layer], weights);
        let squares = self.table(expert::NORM_SQ)?.mixture(&[layer], weights);
        let outputs = self.table(expert::OUTPUT)?;
        let deviation = |expert: usize| {
            let output = outputs.mixture(&[layer, expert], weights);
            let square: f64 = output.iter().map(|x| x * x).sum();
            // Rounding may leave a tiny negative where all outputs are equal.
            let deviation = (squares[expert] - square / counts[expert]).max(0.0);
            if counts[expert] > 0.0 {
                deviation
            } else {
                0.0
            }
        };
        Ok((0..experts).map(deviation).collect())
    }

    /// 1 − mean cos(x_in, x_out) over tokens, for each layer's block, attention
    /// and MLP (block influence; ShortGPT, arXiv 2403.03853).
    ///
    /// # Errors
    /// [`Error::Structure`] for weights as in [`layer`](Self::layer) or if the
    /// mixture has no tokens; [`Error::MissingTable`].
    pub fn block_influence(&self, weights: &[f64]) -> Result<Vec<[f64; 3]>> {
        self.check_weights(weights)?;
        let tokens = self.positive_total(TOKENS, weights)?;
        let cos = self.table(block::COS)?;
        let layers = 0..self.provenance.experts.len();
        Ok(layers
            .map(|layer| {
                let sums = cos.mixture(&[layer], weights);
                [0, 1, 2].map(|part| 1.0 - sums[part] / tokens)
            })
            .collect())
    }

    /// Mean angle between the residual stream at depths i < j, in units of π,
    /// over the last tokens of sequences, as `[i][j]`; depth 0 is the embedding
    /// and depth ℓ+1 the output of layer ℓ. Zero for i ≥ j.
    ///
    /// # Errors
    /// As [`block_influence`](Self::block_influence), for sequences.
    pub fn spans(&self, weights: &[f64]) -> Result<Vec<Vec<f64>>> {
        self.check_weights(weights)?;
        let sequences = self.positive_total(SEQUENCES, weights)?;
        let angles = self.table(span::ANGLE)?;
        let depths = 0..=self.provenance.experts.len();
        Ok(depths
            .map(|depth| {
                let sums = angles.mixture(&[depth], weights);
                sums.into_iter().map(|sum| sum / sequences).collect()
            })
            .collect())
    }

    fn experts(&self, layer: usize) -> Result<usize> {
        let layers = self.provenance.experts.len();
        self.provenance
            .experts
            .get(layer)
            .copied()
            .ok_or_else(|| Error::Structure {
                what: "layer".to_owned(),
                expected: format!("an index below {layers}"),
                found: layer.to_string(),
            })
    }

    fn check_weights(&self, weights: &[f64]) -> Result<()> {
        let domains = self.provenance.domains.len();
        let sound = weights.len() == domains
            && weights
                .iter()
                .all(|weight| weight.is_finite() && *weight >= 0.0)
            && weights.iter().any(|&weight| weight > 0.0);
        if sound {
            return Ok(());
        }
        Err(Error::Structure {
            what: "domain weights".to_owned(),
            expected: format!("{domains} non-negative numbers, not all zero"),
            found: format!("{weights:?}"),
        })
    }

    fn positive_total(&self, name: &str, weights: &[f64]) -> Result<f64> {
        let total = total(self.table(name)?, weights);
        if total > 0.0 {
            return Ok(total);
        }
        Err(Error::Structure {
            what: format!("{name} in the mixture of domains"),
            expected: "some".to_owned(),
            found: "none".to_owned(),
        })
    }
}

/// Σ_d w_d · n_d of a table with one entry per domain.
fn total(table: &Table, weights: &[f64]) -> f64 {
    table.mixture(&[], weights).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::sample;

    #[test]
    fn a_layer_is_the_weighted_sum_of_its_domains() {
        let stats = sample();
        let layer = stats.layer(1, &[2.0, 0.5]).unwrap();
        assert_eq!((layer.layer, layer.experts), (1, 2));
        let rows = |name: &str, d: usize| stats.tables[name].row(&[d, 1]).to_vec();
        for (name, mixed) in [
            (routing::COUNT, &layer.count),
            (routing::GATE, &layer.gate),
            (routing::GATE_SQ, &layer.gate_sq),
            (routing::SOFT_GATE, &layer.soft_gate),
            (expert::NORM, &layer.norm),
            (expert::NORM_SQ, &layer.norm_sq),
            (expert::GATED_NORM, &layer.gated_norm),
            (expert::GATED_NORM_SQ, &layer.gated_norm_sq),
        ] {
            let expected: Vec<f64> = rows(name, 0)
                .iter()
                .zip(rows(name, 1))
                .map(|(a, b)| 2.0 * a + 0.5 * b)
                .take(2)
                .collect();
            assert_eq!(*mixed, expected, "{name}");
        }
        let max: Vec<f64> = rows(expert::MAX, 0)
            .iter()
            .zip(rows(expert::MAX, 1))
            .map(|(a, b)| a.max(b))
            .collect();
        assert_eq!(layer.max, max[..2]);
        let tokens = &stats.tables[TOKENS].values;
        assert_eq!(layer.tokens, 2.0 * tokens[0] + 0.5 * tokens[1]);
    }

    #[test]
    fn a_dense_layer_has_no_experts() {
        let layer = sample().layer(2, &[1.0, 1.0]).unwrap();
        assert_eq!(layer.experts, 0);
        assert!(layer.count.is_empty() && layer.max.is_empty());
        assert!(layer.tokens > 0.0);
    }

    #[test]
    fn layers_and_weights_that_do_not_exist_are_refused() {
        let stats = sample();
        let refused = |layer, weights: &[f64]| {
            matches!(stats.layer(layer, weights), Err(Error::Structure { .. }))
        };
        assert!(refused(3, &[1.0, 1.0]));
        for weights in [
            &[1.0][..],
            &[1.0, -1.0],
            &[0.0, 0.0],
            &[f64::NAN, 1.0],
            &[1.0; 3],
        ] {
            assert!(refused(0, weights), "{weights:?}");
        }
        let mut stats = sample();
        stats.tables.remove(expert::NORM);
        match stats.layer(0, &[1.0, 1.0]) {
            Err(Error::MissingTable { table, known }) => {
                assert_eq!(table, expert::NORM);
                assert!(known.contains(routing::COUNT));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_deviation_is_that_of_the_outputs_themselves() {
        // Expert 0 of layer 0 put out (1, 2), (3, −2) in one domain and (0, 5)
        // in the other.
        let mut stats = sample();
        let mut set = |name: &str, values: [&[f64]; 2]| {
            let table = stats.tables.get_mut(name).unwrap();
            for (domain, values) in values.into_iter().enumerate() {
                table.row_mut(&[domain, 0])[..values.len()].copy_from_slice(values);
            }
        };
        set(routing::COUNT, [&[2.0, 0.0], &[1.0, 0.0]]);
        set(expert::NORM_SQ, [&[18.0, 0.0], &[25.0, 0.0]]);
        set(expert::OUTPUT, [&[4.0, 0.0], &[0.0, 5.0]]);
        let mean = [4.0 / 3.0, 5.0 / 3.0];
        let expected: f64 = [[1.0, 2.0], [3.0, -2.0], [0.0, 5.0]]
            .iter()
            .map(|f: &[f64; 2]| (f[0] - mean[0]).powi(2) + (f[1] - mean[1]).powi(2))
            .sum();
        let found = stats.output_deviation(0, &[1.0, 1.0]).unwrap();
        assert!((found[0] - expected).abs() < 1e-12);
        assert_eq!(found[1], 0.0);
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn influence_and_spans_are_means_over_the_mixture() {
        let stats = sample();
        let weights = [1.0, 3.0];
        let (tokens, cos) = (&stats.tables[TOKENS].values, &stats.tables[block::COS]);
        let influence = stats.block_influence(&weights).unwrap();
        assert_eq!(influence.len(), 3);
        let sum = cos.row(&[0, 2, 1])[0] + 3.0 * cos.row(&[1, 2, 1])[0];
        assert!((influence[2][1] - (1.0 - sum / (tokens[0] + 3.0 * tokens[1]))).abs() < 1e-15);
        let (sequences, angle) = (&stats.tables[SEQUENCES].values, &stats.tables[span::ANGLE]);
        let spans = stats.spans(&weights).unwrap();
        assert_eq!((spans.len(), spans[0].len()), (4, 4));
        let sum = angle.row(&[0, 1, 3])[0] + 3.0 * angle.row(&[1, 1, 3])[0];
        assert!((spans[1][3] - sum / (sequences[0] + 3.0 * sequences[1])).abs() < 1e-15);
    }

    #[test]
    fn a_mixture_without_tokens_has_no_mean() {
        let mut stats = sample();
        stats.tables.get_mut(TOKENS).unwrap().values[0] = 0.0;
        assert!(matches!(
            stats.block_influence(&[1.0, 0.0]),
            Err(Error::Structure { .. })
        ));
        assert!(stats.block_influence(&[1.0, 1.0]).is_ok());
    }
}
