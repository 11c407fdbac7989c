//! A model on the hub whose weights come as they are asked for.
//!
//! Names and shapes are here, so that it can be planned for; calibration runs
//! it, with the shards of a block at a time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::Device;
use router_stats::calibration::{calibrate_arriving, CalibrateOptions, Sequences, Weights};
use router_stats::forward;
use router_stats::progress::Progress;
use router_stats::stats::Stats;
use router_stats::Error as StatsError;

use super::arriving::Arriving;
use super::overall::Overall;
use crate::format;
use crate::hub::Listed;
use crate::pipeline::{Model, Reporter};
use crate::Result;

/// A model of which few shards are here.
pub struct Remote {
    model: Model,
    arriving: Arriving,
    root: PathBuf,
}

impl Remote {
    /// Opens the model, with what is here of it in `root`. Until its
    /// [`fingerprint`](Model::fingerprint) is known, another name stands in for
    /// it that no other content has.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), and those of opening a checkpoint.
    pub fn open(
        listed: &Listed,
        root: &Path,
        name: String,
        device: &Device,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (arriving, mut checkpoint) = Arriving::open(listed, root, progress)?;
        checkpoint.claim_fingerprint(arriving.identity());
        Ok(Self {
            model: Model::of(checkpoint, name, device)?,
            arriving,
            root: root.to_path_buf(),
        })
    }

    /// The model. Its weights are not here.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.arriving.sizes().values().sum()
    }

    /// Takes `fingerprint` for that of the model: what a plan or statistics
    /// claim, and who prunes by them compares.
    ///
    /// # Errors
    /// If others read the model too.
    pub fn claim(&mut self, fingerprint: &str) -> Result<()> {
        let checkpoint = self.model.forward.checkpoint_mut()?;
        checkpoint.claim_fingerprint(fingerprint.to_owned());
        fingerprint.clone_into(&mut self.model.fingerprint);
        Ok(())
    }

    /// As [`claim`](Self::claim), of the model that `stats` were made with, if it
    /// can be this one.
    ///
    /// # Errors
    /// [`StatsError::StatsMismatch`] if it has another family or structure.
    pub fn claim_of(&mut self, stats: &Stats) -> Result<()> {
        let (made, topology) = (&stats.provenance, self.model.topology());
        let differ = |what: &str, left: String, right: String| {
            let what = format!("the {what} of the model");
            match left == right {
                true => Ok(()),
                false => Err(StatsError::StatsMismatch { what, left, right }),
            }
        };
        let family = self.model.family().model_type();
        differ("family", made.family.clone(), family.to_owned())?;
        let (experts, hidden) = (topology.experts(), topology.hidden);
        differ(
            "experts",
            format!("{:?}", made.experts),
            format!("{experts:?}"),
        )?;
        differ("width", made.hidden.to_string(), hidden.to_string())?;
        self.claim(&made.fingerprint)
    }

    /// Statistics of `sequences`. Shards come before the first block that reads
    /// them and go after the last; each comes once.
    ///
    /// # Errors
    /// Those of [`calibrate`](router_stats::calibration::calibrate), [`Error::Hub`](crate::Error::Hub) and
    /// [`Error::Space`](crate::Error::Space).
    pub fn calibrate(
        &mut self,
        sequences: &Sequences,
        options: &CalibrateOptions,
        reporter: &dyn Reporter,
    ) -> Result<Stats> {
        let needs = needs(&self.model.forward)?;
        let Self {
            model,
            arriving,
            root,
        } = self;
        let most = most(&needs, arriving);
        arriving.expect_room(root, most)?;
        reporter.report(
            "Streaming",
            &format!(
                "{} shards, {}, each once; at most {} of them on disk",
                arriving.sizes().len(),
                format::bytes(arriving.sizes().values().sum()),
                format::bytes(most)
            ),
        );
        let mut bring = |forward: &mut forward::Model, weights| -> Result<()> {
            let checkpoint = forward.checkpoint_mut()?;
            let index = match weights {
                Weights::Embedding => 0,
                Weights::Block(layer) => layer + 1,
            };
            arriving.keep(checkpoint, |file| needed(&needs[index..], file))?;
            for file in &needs[index] {
                let overall = Overall::new("Streaming", arriving.sizes(), file, reporter);
                arriving.bring(checkpoint, file, &overall)?;
            }
            Ok(())
        };
        let forward = &mut model.forward;
        let mut stats = calibrate_arriving(forward, sequences, options, &mut bring, reporter)?;
        let checkpoint = model.forward.checkpoint_mut()?;
        arriving.keep(checkpoint, |_| false)?;
        let fingerprint = arriving.fingerprint(checkpoint, reporter)?;
        self.claim(&fingerprint)?;
        stats.provenance.fingerprint = fingerprint;
        Ok(stats)
    }
}

/// Shards of the embedding, then those of every block.
fn needs(model: &forward::Model) -> Result<Vec<BTreeSet<String>>> {
    let (checkpoint, names) = (model.checkpoint(), model.family().names());
    let file = |tensor: &str| -> Result<String> { Ok(checkpoint.place(tensor)?.0.to_owned()) };
    let mut needs = vec![BTreeSet::from([file(names.embedding)?])];
    for layer in 0..model.topology().layers() {
        let prefix = names.in_block(layer, "");
        let tensors = checkpoint.names().filter(|name| name.starts_with(&prefix));
        needs.push(tensors.map(file).collect::<Result<_>>()?);
    }
    Ok(needs)
}

fn needed(needs: &[BTreeSet<String>], file: &str) -> bool {
    needs.iter().any(|files| files.contains(file))
}

/// Bytes of the shards that are here at a time, at most.
fn most(needs: &[BTreeSet<String>], arriving: &Arriving) -> u64 {
    let at = |index: usize| -> u64 {
        let here = arriving
            .sizes()
            .iter()
            .filter(|(file, _)| needed(&needs[..=index], file) && needed(&needs[index..], file));
        here.map(|(_, bytes)| bytes).sum()
    };
    let largest = arriving.sizes().values().copied().max().unwrap_or(0);
    // One that no block reads comes alone.
    (0..needs.len()).map(at).max().unwrap_or(0).max(largest)
}
