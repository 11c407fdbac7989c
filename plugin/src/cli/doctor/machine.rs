//! The program, the processor, memory, GPUs, the port.

use std::path::Path;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::{Args, Finding};
use crate::cli::Global;
use crate::{device, format, server};

/// Free memory below which even small models are slow to work with.
const LITTLE_MEMORY: u64 = 2 << 30;

/// Answers about the machine.
pub(super) fn findings(args: &Args, global: &Global) -> Vec<Finding> {
    vec![
        program(),
        configuration(global),
        processor(),
        memory(),
        gpu(args.model.cpu),
        port(args.port),
    ]
}

fn program() -> Finding {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("cudnn", cfg!(feature = "cudnn")),
        ("flash-attn", cfg!(feature = "flash-attn")),
        ("metal", cfg!(feature = "metal")),
    ];
    let built: Vec<&str> = features
        .iter()
        .filter(|(_, built)| *built)
        .map(|(name, _)| *name)
        .collect();
    let features = match built.is_empty() {
        true => "no features".to_owned(),
        false => built.join(", "),
    };
    Finding::ok(
        "program",
        format!(
            "mistralrs-prune {} with mistral.rs 0.8.1, {} {}, built with {features}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    )
}

fn configuration(global: &Global) -> Finding {
    let file = global.config.as_deref().map(Path::display);
    let found = file.map_or_else(|| "no file".to_owned(), |path| path.to_string());
    Finding::ok("configuration", found)
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if cores == 1 { "" } else { "s" };
    let found = |features: &[&str]| format!("{cores} core{plural}, {}", features.join(", "));
    let (wide, features) = instructions();
    match wide {
        true => Finding::ok("processor", found(&features)),
        false => Finding::warning(
            "processor",
            found(&["no wide vector instructions"]),
            "calibration and serving on this processor are several times slower than on one with AVX2 or NEON",
        ),
    }
}

/// Vector instructions that matrix products use, and whether there are any.
#[cfg(target_arch = "x86_64")]
fn instructions() -> (bool, Vec<&'static str>) {
    let all = [
        ("AVX2", std::is_x86_feature_detected!("avx2")),
        ("FMA", std::is_x86_feature_detected!("fma")),
        ("F16C", std::is_x86_feature_detected!("f16c")),
        ("AVX-512", std::is_x86_feature_detected!("avx512f")),
        ("AVX-512 BF16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    let has = all.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    (all[0].1 && all[1].1, has.collect())
}

/// Vector instructions that matrix products use, and whether there are any.
#[cfg(target_arch = "aarch64")]
fn instructions() -> (bool, Vec<&'static str>) {
    // Part of the architecture.
    (true, vec!["NEON"])
}

/// Vector instructions that matrix products use, and whether there are any.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> (bool, Vec<&'static str>) {
    (false, Vec::new())
}

/// Bytes of memory that are free, within what a container allows.
pub(super) fn free_memory() -> (u64, u64) {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory < system.total_memory() => (
            limits.free_memory.min(system.available_memory()),
            limits.total_memory,
        ),
        _ => (system.available_memory(), system.total_memory()),
    }
}

fn memory() -> Finding {
    let (free, total) = free_memory();
    let found = format!("{} free of {}", format::bytes(free), format::bytes(total));
    match free < LITTLE_MEMORY {
        false => Finding::ok("memory", found),
        true => Finding::warning(
            "memory",
            found,
            "end other programs; `calibrate --spill` keeps hidden states on disk",
        ),
    }
}

fn gpu(cpu: bool) -> Finding {
    let built = cfg!(any(feature = "cuda", feature = "metal"));
    let nvidia = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"];
    let nvidia = nvidia.iter().any(|path| Path::new(path).exists());
    if !built {
        return match (nvidia, cfg!(target_os = "macos")) {
            (true, _) => Finding::warning(
                "gpu",
                "there is one of NVIDIA, but this build cannot use it",
                "install the CUDA toolkit and build with `cargo build --release --features cuda`",
            ),
            (_, true) => Finding::warning(
                "gpu",
                "this build cannot use Metal",
                "build with `cargo build --release --features metal`",
            ),
            _ => Finding::ok("gpu", "none; computations run on the processor"),
        };
    }
    match device::best(cpu) {
        Ok(device) => Finding::ok(
            "gpu",
            format!("computations run on {:?}", device.location()),
        ),
        Err(error) => Finding {
            hint: Some("update its driver, or compute on the processor: --cpu".to_owned()),
            ..Finding::error("gpu", &error)
        },
    }
}

fn port(port: u16) -> Finding {
    match server::listen("127.0.0.1", port) {
        Ok(_) => Finding::ok("port", format!("{port} is free")),
        Err(error) => Finding::warning("port", error.to_string(), error.hint().unwrap_or_default()),
    }
}
