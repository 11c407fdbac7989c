//! A Chromium without a window, driven through the Chrome DevTools Protocol.
//!
//! Messages are JSON that ends in a zero byte, on file descriptors 3 and 4 of
//! the browser (`--remote-debugging-pipe`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::Duration;

use serde_json::{json, Value};

/// How long the browser may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What scripts of tests may use: `$` finds an element, `until` waits for a
/// condition, `middle` says where an element is.
const HELPERS: &str = "const $ = (query) => document.querySelector(query);
const sleep = (time) => new Promise((done) => setTimeout(done, time));
const until = async (test, what) => {
  for (let tries = 0; tries < 1500; tries += 1) { const found = test(); if (found) return found; await sleep(20); }
  throw new Error('waited in vain for ' + (what ?? test));
};
const middle = (query) => { $(query).scrollIntoView({ block: 'center' }); const box = $(query).getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };";

/// One browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    sent: u64,
    said: Vec<Value>,
}

impl Browser {
    /// Starts a browser that keeps its profile in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let profile = format!("--user-data-dir={}", folder.join("browser").display());
        // The shell gives the browser its two descriptors.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null",
                "sh",
            ])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--remote-debugging-pipe", &profile, "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, mut stdout) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while stdout
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            session: String::new(),
            sent: 0,
            said: Vec::new(),
        };
        let target = browser.send("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.send(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.send(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and gives its result.
    fn send(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to
            .write_all(format!("{message}\0").as_bytes())
            .unwrap();
        loop {
            let answer = self
                .from
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.said.push(answer);
        }
    }

    /// Opens a page in a window of this width, in light or dark colours.
    pub(crate) fn open(&mut self, url: &str, width: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        self.send(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}),
        );
        self.send(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        self.said.clear();
        // Away first: an address that differs in its fragment alone loads nothing.
        self.send("Page.navigate", json!({"url": "about:blank"}));
        self.send("Page.navigate", json!({"url": url}));
        self.run("await until(() => document.readyState === 'complete');");
    }

    /// Runs an asynchronous script, with [`HELPERS`], and gives what it returns.
    pub(crate) fn run(&mut self, script: &str) -> Value {
        let expression = format!("(async () => {{ {HELPERS}\n{script} }})()");
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.send("Runtime.evaluate", params);
        let failed = &answer["exceptionDetails"];
        assert!(
            failed.is_null(),
            "{script}\n{failed:#}\n{:#?}",
            self.errors()
        );
        answer["result"]["value"].clone()
    }

    /// Types text where the focus is.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.send("Input.insertText", json!({"text": text}));
    }

    /// Presses a key, such as `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => panic!("{key} has no code here"),
        };
        let mut params =
            json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        if key == "Enter" {
            params["text"] = json!("\r");
        }
        self.send("Input.dispatchKeyEvent", params.clone());
        params["type"] = json!("keyUp");
        self.send("Input.dispatchKeyEvent", params);
    }

    /// Moves the pointer.
    pub(crate) fn point(&mut self, at: [f64; 2]) {
        self.mouse("mouseMoved", at);
    }

    /// Presses the button of the mouse on an element.
    pub(crate) fn click(&mut self, query: &str) {
        let at = self.run(&format!("return middle('{query}');"));
        let at = [at[0].as_f64().unwrap(), at[1].as_f64().unwrap()];
        self.point(at);
        self.mouse("mousePressed", at);
        self.mouse("mouseReleased", at);
    }

    fn mouse(&mut self, what: &str, [x, y]: [f64; 2]) {
        let button = if what == "mouseMoved" { "none" } else { "left" };
        let params = json!({"type": what, "x": x, "y": y, "button": button, "clickCount": 1});
        self.send("Input.dispatchMouseEvent", params);
    }

    /// What the page complained of since it was opened.
    pub(crate) fn errors(&self) -> Vec<String> {
        let complaint = |message: &Value| {
            let params = &message["params"];
            let kind = match message["method"].as_str()? {
                "Runtime.exceptionThrown" => "error",
                "Runtime.consoleAPICalled" => params["type"].as_str()?,
                "Log.entryAdded" => params["entry"]["level"].as_str()?,
                _ => return None,
            };
            ["error", "warning", "assert"]
                .contains(&kind)
                .then(|| params.to_string())
        };
        self.said.iter().filter_map(complaint).collect()
    }

    /// The addresses that it asked for since it was opened.
    pub(crate) fn requests(&self) -> Vec<String> {
        let sent = self
            .said
            .iter()
            .filter(|message| message["method"] == "Network.requestWillBeSent");
        sent.filter_map(|message| {
            message["params"]["request"]["url"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
    }

    /// Saves the whole page as a picture among the temporary files of the
    /// build, for people to look at.
    pub(crate) fn picture(&mut self, name: &str) -> PathBuf {
        let size = self.send("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip =
            json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let taken = self.send("Page.captureScreenshot", params);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&path, base64(taken["data"].as_str().unwrap())).unwrap();
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Decodes base64 (RFC 4648, section 4).
fn base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|&letter| letter != b'=') {
        bits = bits << 6 | u32::from(digit(letter));
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
