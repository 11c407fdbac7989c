//! Jobs of verbs that neither calibrate nor measure.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use crate::cache::Cache;
use crate::pipeline::{Calibration, Change, Job, ModelSource, Reporter};

/// The model in `dir`.
pub(super) fn local(dir: &Path) -> ModelSource {
    ModelSource {
        model: Some(dir.display().to_string()),
        ..ModelSource::default()
    }
}

/// Carries out `change`, for which nothing has to be run.
pub(super) fn unmeasured(
    source: ModelSource,
    change: Change,
    device: Device,
    cache: Cache,
    reporter: Arc<dyn Reporter>,
) -> Job {
    Job {
        source,
        change,
        texts: Vec::new(),
        calibration: Calibration::default(),
        evaluation: None,
        // The engine knows.
        uneven_weights: None,
        max_seq_len: None,
        stream: false,
        device,
        cache,
        reporter,
    }
}
