//! `overhead`, which is not in the help: serves next to nothing and prints what
//! the process has resident; see [`crate::memory::overhead`].

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::Device;
use safetensors::Dtype;
use serde_json::json;

use super::job::{local, unmeasured};
use super::{output, Global};
use crate::demo::Demo;
use crate::engine::EngineOptions;
use crate::memory::{Overhead, Resident};
use crate::pipeline::{Change, Model};
use crate::server::{self, Origins, Server, ServerOptions, VariantOptions};
use crate::surgery::{Held, Layout};
use crate::{Error, Result};
use router_stats::family::Keep;
use router_stats::progress::Silent;

/// Width of the model, which has two experts in one layer.
const WIDTH: usize = 32;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `overhead`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Model directory whose tokenizer is used
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Rows of its embedding
    #[arg(long, value_name = "N")]
    vocabulary: usize,
}

/// Runs `overhead`: prints an [`Overhead`] as JSON.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let dir = place.path().join("nothing");
    write(&dir, args)?;
    let weights = weights(&dir)?;
    // Its texts are part of the program.
    let cache = global.cache()?;
    Demo::unpack(&cache, &Silent)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listener = server::listen("127.0.0.1", 0)?;
    let options = ServerOptions {
        api_key: None,
        loopback: true,
        origins: Origins::new(&[])?,
        max_body: 1 << 20,
        slots: 1,
        max_queue: 1,
        request_timeout: PATIENCE,
        first_token_timeout: PATIENCE,
        log: None,
    };
    let address = listener.local_addr()?;
    let resident = runtime.block_on(async {
        let server = Server::load(
            unmeasured(
                local(&dir),
                Change::Nothing,
                Device::Cpu,
                cache,
                std::sync::Arc::new(Silent),
            ),
            EngineOptions {
                max_seqs: 1,
                ..EngineOptions::default()
            },
            &VariantOptions::default(),
            options,
        )
        .await?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.run(listener, async {
            // Nobody asks any more, either way.
            let _ = stopped.await;
        });
        let asking = tokio::task::spawn_blocking(move || {
            ask(address)?;
            let resident = Resident::now();
            drop(stop);
            anyhow::Ok(resident)
        });
        let (served, asked) = tokio::join!(serving, asking);
        served?;
        asked?
    })?;
    let resident = resident.ok_or(Error::Engine {
        what: "measuring the engine's own memory",
        reason: "this system does not say what a process has resident".to_owned(),
    })?;
    Ok(output::json(&Overhead {
        program: resident.file,
        engine: resident.anonymous.saturating_sub(weights),
    })?)
}

/// Has it answer, so that the pages and threads that this takes are there too.
fn ask(address: std::net::SocketAddr) -> std::io::Result<()> {
    let text = "the cat sat on a mat and ".repeat(16);
    let chat = json!({"role": "user", "content": &text});
    for (path, body) in [
        (
            "completions",
            json!({"model": "default", "prompt": &text, "max_tokens": 8}),
        ),
        (
            "chat/completions",
            json!({"model": "default", "messages": [chat], "max_tokens": 8}),
        ),
    ] {
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(address)?;
        write!(
            stream,
            "POST /v1/{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        // A model without a template refuses chats, which is an answer as well.
        std::io::copy(&mut stream, &mut std::io::sink())?;
    }
    Ok(())
}

/// Bytes that the engine holds of the model in `dir`.
fn weights(dir: &Path) -> Result<u64> {
    let model = Model::open(dir, "nothing".to_owned(), &Device::Cpu)?;
    let (family, topology) = (model.family(), model.topology());
    let held = Held::new(
        model.checkpoint(),
        family,
        topology,
        Layout::Engine,
        Dtype::F32,
        false,
    )?;
    Ok(held.bytes(&Keep::all(topology)))
}

/// Writes a Qwen3-MoE of zeros, which the file system need not store, in the
/// engine's layout.
fn write(dir: &Path, args: &Args) -> Result<()> {
    let create = |path: &Path| std::fs::create_dir_all(path).map_err(router_stats::Error::io(path));
    create(dir)?;
    for entry in std::fs::read_dir(&args.dir).map_err(router_stats::Error::io(&args.dir))? {
        let path = entry.map_err(router_stats::Error::io(&args.dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| beside_weights(name)) else {
            continue;
        };
        std::fs::copy(&path, dir.join(name)).map_err(router_stats::Error::io(&path))?;
    }
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "hidden_size": WIDTH, "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "head_dim": WIDTH, "num_experts": 2, "num_experts_per_tok": 1, "norm_topk_prob": true,
        "vocab_size": args.vocabulary, "tie_word_embeddings": true, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "attention_bias": false, "mlp_only_layers": [], "decoder_sparse_step": 1,
        "max_window_layers": 1, "use_sliding_window": false, "sliding_window": null,
        "rope_scaling": null,
    });
    let path = dir.join("config.json");
    std::fs::write(&path, config.to_string()).map_err(router_stats::Error::io(&path))?;
    let layer = |name: &str| format!("model.layers.0.{name}");
    let square = vec![WIDTH, WIDTH];
    let tensors = [
        (
            "model.embed_tokens.weight".to_owned(),
            vec![args.vocabulary, WIDTH],
        ),
        ("model.norm.weight".to_owned(), vec![WIDTH]),
        (layer("input_layernorm.weight"), vec![WIDTH]),
        (layer("post_attention_layernorm.weight"), vec![WIDTH]),
        (layer("self_attn.q_proj.weight"), square.clone()),
        (layer("self_attn.k_proj.weight"), square.clone()),
        (layer("self_attn.v_proj.weight"), square.clone()),
        (layer("self_attn.o_proj.weight"), square),
        (layer("self_attn.q_norm.weight"), vec![WIDTH]),
        (layer("self_attn.k_norm.weight"), vec![WIDTH]),
        (layer("mlp.gate.weight"), vec![2, WIDTH]),
        (layer("mlp.experts.gate_up_proj"), vec![2, WIDTH, 2 * WIDTH]),
        (layer("mlp.experts.down_proj"), vec![2, WIDTH, WIDTH]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let described = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, described);
    }
    let mut text = serde_json::Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let path = dir.join("model.safetensors");
    let io = || router_stats::Error::io(&path);
    std::fs::write(&path, &bytes).map_err(io())?;
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .map_err(io())?;
    file.set_len((bytes.len() + end) as u64).map_err(io())?;
    Ok(())
}

/// Whether a file belongs to the tokenizer or to the template of chats.
fn beside_weights(name: &str) -> bool {
    name.starts_with("tokenizer")
        || name.starts_with("chat_template")
        || name == "generation_config.json"
}
