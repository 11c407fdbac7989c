//! `--speed`: rounds of every model in turn, each a process of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use prune_eval::speed::{Round, Speed};
use router_stats::progress::{Progress, Update};

use super::jobs::Jobs;
use super::variants::Variants;
use crate::pipeline::Change;
use crate::{Error, Result};

/// Speed and memory.
#[derive(clap::Args)]
#[command(next_help_heading = "Speed")]
pub(super) struct SpeedArgs {
    /// Measure speed and memory in mistral.rs, models in turn
    #[arg(long)]
    pub(super) speed: bool,

    /// Tokens of a prompt
    #[arg(long, default_value_t = 256, value_name = "N", requires = "speed", value_parser = clap::value_parser!(u32).range(2..))]
    speed_prompt: u32,

    /// Tokens to generate
    #[arg(long, default_value_t = 64, value_name = "N", requires = "speed", value_parser = clap::value_parser!(u32).range(2..))]
    speed_tokens: u32,

    /// Rounds; each loads every model once. An interval takes 6 or more
    #[arg(long, default_value_t = 6, value_name = "N", requires = "speed", value_parser = clap::value_parser!(u32).range(1..))]
    speed_rounds: u32,
}

/// Timed requests of a round.
const REQUESTS: u32 = 3;

impl SpeedArgs {
    /// Times every model.
    ///
    /// # Errors
    /// Those of making its checkpoint, and of the engine.
    pub(super) fn run(
        &self,
        variants: &Variants<'_>,
        confidence: f64,
        jobs: &Jobs<'_>,
    ) -> Result<Speed> {
        let mut models = Vec::new();
        let mut sources = Vec::new();
        for (variant, &origin) in variants.list().iter().zip(variants.origins()) {
            let (folder, job) = jobs.of(origin)?;
            // Once before the clocks: it may have to be written first.
            let outcome = job.run()?;
            let bytes = outcome
                .plan
                .as_ref()
                .map_or(outcome.before.bytes, |plan| plan.after.bytes);
            let dir = job.source.directory(jobs.cache, &**jobs.console)?;
            models.push((variant.name.clone(), bytes, Vec::new()));
            sources.push((folder, dir, job.change));
        }
        let total = u64::from(self.speed_rounds) * models.len() as u64;
        let mut done = 0;
        for _ in 0..self.speed_rounds {
            for ((name, _, rounds), (_, dir, change)) in models.iter_mut().zip(&sources) {
                rounds.push(self.round(dir, change, jobs)?);
                done += 1;
                jobs.console.step(&Update {
                    stage: "Timing",
                    detail: name,
                    unit: "rounds",
                    done,
                    total,
                })?;
            }
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let device = match jobs.model.device()?.is_cpu() {
            true => format!("CPU, {threads} threads"),
            false => "GPU".to_owned(),
        };
        Ok(Speed::new(
            format!("mistral.rs, {device}"),
            confidence,
            models,
        ))
    }

    /// One model in a process of its own.
    fn round(&self, dir: &Path, change: &Change, jobs: &Jobs<'_>) -> Result<Round> {
        let failed = |reason: String| Error::Engine {
            what: "timing the model",
            reason,
        };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["time", "--quiet", "--cache-dir"]);
        command.arg(jobs.cache.root()).arg("-m").arg(dir);
        command.args(["--prompt-tokens", &self.speed_prompt.to_string()]);
        command.args(["--generated-tokens", &self.speed_tokens.to_string()]);
        command.args(["--requests", &REQUESTS.to_string()]);
        if let Change::Plan(path) = change {
            command.arg("--plan").arg(path);
        }
        if jobs.model.cpu {
            command.arg("--cpu");
        }
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().trim_start_matches("error: ");
            return Err(failed(
                said.lines().next().unwrap_or("no answer").to_owned(),
            ));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
    }
}
