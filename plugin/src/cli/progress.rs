//! Progress on a terminal, or as lines in a log.
//!
//! On a terminal one bar shows where the current stage is, its rate and when
//! it will be done; otherwise a line is written every few seconds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use router_stats::progress::{Progress, Update};

use super::table::Table;
use super::{interrupt, output};
use crate::format;
use crate::pipeline::Reporter;

/// Time between two lines when there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Rates over less time than this say nothing.
const SETTLED: Duration = Duration::from_millis(300);

/// Shows the progress of one command and passes on Ctrl-C.
pub(super) struct Console {
    draws: bool,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Work that was already done when this run began.
    resumed: u64,
    /// Work done at the last update.
    done: u64,
    last_line: Instant,
}

impl Console {
    /// A console on stderr.
    pub(super) fn new() -> Self {
        Self {
            draws: output::draws(),
            stage: Mutex::new(None),
        }
    }

    /// Removes the bar, if one is shown.
    pub(super) fn clear(&self) {
        let stage = self
            .stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(bar) = stage.and_then(|stage| stage.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Console {
    fn update(&self, update: &Update<'_>) {
        let mut current = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        // A stage whose work starts over is another pass of it.
        let goes_on = |stage: &Stage| stage.name == update.stage && stage.done <= update.done;
        if !current.as_ref().is_some_and(goes_on) {
            let last = current.take();
            let mut next = Stage::start(update, self.draws);
            if let Some(last) = last {
                if last.name == next.name {
                    next.last_line = last.last_line;
                }
                if let Some(bar) = last.bar {
                    bar.finish_and_clear();
                }
            }
            *current = Some(next);
        }
        if let Some(stage) = current.as_mut() {
            stage.show(update);
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}

impl Reporter for Console {
    fn table(&self, rows: &[Vec<String>]) {
        self.text(&format!("\n{}", Table::of(rows)));
    }

    fn report(&self, verb: &str, text: &str) {
        self.clear();
        output::line(verb, text);
    }

    fn text(&self, text: &str) {
        self.clear();
        output::plain(text);
    }

    fn hint(&self, text: &str) {
        self.clear();
        output::hint(text);
    }
}

impl Stage {
    fn start(update: &Update<'_>, draws: bool) -> Self {
        let now = Instant::now();
        let bar = draws.then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(update.total), ProgressDrawTarget::stderr());
            let template = if update.total > 0 {
                "{prefix:<11} {bar:24} {wide_msg}"
            } else {
                "{prefix:<11} {wide_msg}"
            };
            // The template is a constant; the default style is as good as any
            // if a future indicatif refuses it.
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("█▌░"));
            bar.set_prefix(update.stage.to_owned());
            bar
        });
        // The first line without a terminal comes at once.
        let last_line = now.checked_sub(LINE_EVERY).unwrap_or(now);
        Self {
            name: update.stage.to_owned(),
            bar,
            started: now,
            resumed: update.done,
            done: update.done,
            last_line,
        }
    }

    fn show(&mut self, update: &Update<'_>) {
        self.done = update.done;
        match &self.bar {
            Some(bar) => {
                bar.set_length(update.total);
                bar.set_position(update.done);
                bar.set_message(self.describe(update));
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                output::line(&self.name, &self.describe(update));
            }
            None => {}
        }
    }

    /// `layer 3/48  12.0k/65.5k tok  9.10k tok/s  eta 1m52s`.
    fn describe(&self, update: &Update<'_>) -> String {
        let mut parts = Vec::new();
        if !update.detail.is_empty() {
            parts.push(update.detail.to_owned());
        }
        if update.total > 0 {
            let percent = update.done as f64 / update.total as f64 * 100.0;
            parts.push(format!(
                "{percent:.0}% of {}",
                format::amount(update.total, update.unit)
            ));
            let elapsed = self.started.elapsed();
            let done = update.done.saturating_sub(self.resumed);
            if elapsed >= SETTLED && done > 0 {
                let rate = done as f64 / elapsed.as_secs_f64();
                parts.push(format!(
                    "{}/s",
                    format::amount(rate.round() as u64, update.unit)
                ));
                let left = update.total.saturating_sub(update.done) as f64 / rate;
                parts.push(format!(
                    "eta {}",
                    format::duration(Duration::from_secs_f64(left.min(1e9)))
                ));
            }
        }
        parts.join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_place_share_rate_and_end() {
        let update = Update {
            stage: "Calibrating",
            detail: "layer 3/48",
            unit: "tok",
            done: 3000,
            total: 4000,
        };
        let mut stage = Stage::start(&update, false);
        assert_eq!(stage.describe(&update), "layer 3/48  75% of 4.00k tok");
        // Half of what this run did not find done: 1000 tokens in 10 s.
        stage.started = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        stage.resumed = 2000;
        assert_eq!(
            stage.describe(&update),
            "layer 3/48  75% of 4.00k tok  100 tok/s  eta 10s"
        );
    }
}
