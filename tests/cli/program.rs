//! Running the binary: with a cache of its own, to the end or watched.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// A file of the repository.
pub(crate) fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(path).display().to_string()
}

/// A folder for one test, with the cache that its runs use.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        }
    }

    /// Sets a variable for its runs.
    pub(crate) fn set(&mut self, name: &'static str, value: String) {
        self.environment.push((name, value));
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same, as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Copies a golden checkpoint, to be damaged.
    pub(crate) fn copy_of(&self, family: &str) -> PathBuf {
        let copy = self.path(family);
        fs::create_dir(&copy).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            let from = repository(&format!("tests/golden/{family}/{name}"));
            fs::copy(from, copy.join(name)).unwrap();
        }
        copy
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mistralrs-prune"));
        command
            .args(args)
            .env("MISTRALRS_PRUNE_CACHE", self.path("cache"))
            .env_remove("MISTRALRS_PRUNE_API_KEY")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("MISTRALRS_PRUNE_CONFIG")
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env_remove("COLUMNS")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Finished::new(self.command(args).output().unwrap())
    }

    /// Runs to the end with more in its environment.
    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Finished {
        let mut command = self.command(args);
        Finished::new(command.envs(variables.iter().copied()).output().unwrap())
    }

    /// Writes the configuration file that its runs read.
    pub(crate) fn configure(&self, text: &str) {
        let path = self.path("config/mistralrs-prune/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs to the end, which must be a good one.
    pub(crate) fn succeed(&self, args: &[&str]) -> Finished {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(0), "{args:?}\n{}", finished.stderr);
        finished
    }

    /// Starts, to be watched.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Running::new(child.unwrap())
    }

    /// Statistics of a golden checkpoint, by name.
    pub(crate) fn calibrate(&self, family: &str, more: &[&str]) -> PathBuf {
        let output = self.path(&format!("{family}.stats"));
        let (model, text) = (
            repository(&format!("tests/golden/{family}")),
            repository("models/demo/held-out/stories.txt"),
        );
        let (output_arg, text) = (output.display().to_string(), format!("stories={text}"));
        let mut args = vec!["calibrate", "-m", &model, "--calibration", &text];
        args.extend(["--calibration-tokens", "1024", "--seq-len", "64"]);
        args.extend(["-o", &output_arg]);
        args.extend(more);
        self.succeed(&args);
        output
    }

    /// A plan for a golden checkpoint that keeps half of its experts.
    pub(crate) fn plan(&self, family: &str) -> PathBuf {
        let stats = self.calibrate(family, &[]).display().to_string();
        let output = self.path(&format!("{family}.plan.json"));
        let (model, output_arg) = (
            repository(&format!("tests/golden/{family}")),
            output.display().to_string(),
        );
        let half = ["--prune-experts", "0.5"];
        let args = ["plan", &stats, "-m", &model, "-o", &output_arg];
        self.succeed(&[&args[..], &half].concat());
        output
    }
}

/// What a run left.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its data.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}:\n{}", self.stdout))
    }

    /// Fails unless it failed with this code and said all of this.
    pub(crate) fn expect_failure(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for said in said {
            assert!(
                self.stderr.contains(said),
                "no `{said}` in\n{}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}

/// A run whose stderr is read line by line; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    /// What it said so far.
    pub(crate) said: String,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    // Nobody listens any more, but the program must not block.
                    let _ = stderr.read_to_string(&mut line);
                }
            }
        });
        Self {
            child,
            lines,
            reader: Some(reader),
            said: String::new(),
        }
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push_str(&line);
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}` in time:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without `{text}`:\n{}", self.said)
                }
            }
        }
    }

    /// Looks at the files it writes, without pause, until `condition` holds or
    /// it ends; says which.
    pub(crate) fn watch(&mut self, condition: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if condition() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::yield_now();
        }
        panic!("nothing happened in time:\n{}", self.said)
    }

    /// SIGKILL, which a program cannot notice.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its number.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// SIGINT, which is Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; its exit code and all it said.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.said.extend(self.lines.try_iter());
        (status.code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
