//! The page at `/`, and what a browser makes of it.

use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::browser::Browser;
use crate::program::Workshop;
use crate::serve::Server;

/// Widths and themes that the page is looked at in.
const LOOKS: [(u32, bool); 4] = [(1280, false), (1280, true), (375, false), (375, true)];

/// A server of the demo model, pruned.
fn server(workshop: &Workshop, more: &[&str], key: Option<&'static str>) -> Server {
    let mut args = vec!["--prune-experts", "0.5", "--calibration-tokens", "4096"];
    args.extend(["--eval-tokens", "4096", "--seq-len", "256"]);
    args.extend(more);
    Server::start(workshop, &args, key)
}

/// Nothing is wider than the window, nothing was complained of, and nothing was
/// asked of anyone else.
fn check(browser: &mut Browser, url: &str, what: &str) {
    let overflow = browser
        .run("const root = document.documentElement; return root.scrollWidth - root.clientWidth;");
    assert_eq!(overflow, 0, "{what}");
    let errors = browser.errors();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
    let requests = browser.requests();
    let elsewhere: Vec<_> = requests
        .iter()
        .filter(|asked| !asked.starts_with(url) && !asked.starts_with("about:"))
        .collect();
    assert!(elsewhere.is_empty(), "{what}: {elsewhere:?}");
    assert!(requests.len() > 10, "{what}: {requests:?}");
}

#[test]
fn files_are_sent_with_their_types_and_kept_from_doing_more() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], Some("secret"));
    let header = |path: &str, name: &str| {
        let response = server.send(path, None, None);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.headers()[name].to_str().unwrap().to_owned()
    };
    for (path, kind) in [
        ("/", "text/html"),
        ("/assets/main.js", "text/javascript"),
        ("/assets/page.css", "text/css"),
    ] {
        assert!(header(path, "content-type").starts_with(kind), "{path}");
        assert_eq!(header(path, "x-content-type-options"), "nosniff");
        assert_eq!(header(path, "referrer-policy"), "no-referrer");
        assert_eq!(header(path, "cache-control"), "no-cache");
        assert!(header(path, "etag").starts_with('"'));
        let policy = header(path, "content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
    }
    for path in ["/assets/none.js", "/assets/..%2fmod.rs", "/assets/mod.rs"] {
        assert_eq!(
            server.send(path, None, None).status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    for path in ["/v1/models", "/v1/pruning"] {
        assert_eq!(
            server.send(path, None, None).status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    server.stop();
}

#[test]
#[ignore = "needs Chromium"]
fn a_browser_chats_stops_and_looks_at_what_was_pruned() {
    let workshop = Workshop::new();
    let server = server(&workshop, &[], None);
    let url = server.url().to_owned();
    let mut browser = Browser::start(&workshop.path(""));
    let papers = LOOKS.map(|(width, dark)| {
        let look = format!("{width}{}", if dark { "-dark" } else { "" });
        browser.open(&url, width, dark);
        browser.run("await until(() => $('#model').value);");
        chat(&mut browser, &look);
        stop(&mut browser);
        browser.picture(&format!("chat-{look}"));
        check(&mut browser, &url, &format!("chat at {look}"));
        pruning(&mut browser);
        browser.picture(&format!("pruning-{look}"));
        check(&mut browser, &url, &format!("pruning at {look}"));
        browser.run("return getComputedStyle(document.body).backgroundColor;")
    });
    assert_eq!(papers[0], papers[2]);
    assert_ne!(papers[0], papers[1], "a dark page is dark");
    server.stop();
}

/// Two turns, typed and sent with the keyboard.
fn chat(browser: &mut Browser, look: &str) {
    // Names that look like HTML stay text.
    let typed = "Tell me a story. <img src=x onerror=alert(1)>";
    browser.click("#prompt");
    browser.type_text(typed);
    browser.press("Enter");
    let found = browser.run(
        "await until(() => $('.answer')?.getAttribute('aria-busy') === 'false', 'the answer');
         return { said: $('.said').textContent, images: $('#log').querySelectorAll('img').length,
                  text: $('.answer .text').textContent, meter: $('.answer .meter').textContent,
                  problems: document.querySelectorAll('#log .problem').length,
                  first: $('#gauge-first').textContent, focus: document.activeElement.id };",
    );
    assert_eq!(found["said"], typed, "{look}");
    assert_eq!(found["images"], 0, "{look}");
    assert_eq!(found["problems"], 0, "{look}: {found:#}");
    assert_ne!(found["text"], "", "{look}");
    let meter = found["meter"].as_str().unwrap();
    assert!(
        meter.contains("first token") && meter.contains("token"),
        "{meter}"
    );
    assert_ne!(found["first"], "–", "{look}");
    assert_eq!(found["focus"], "prompt", "{look}");
    browser.type_text("And then?");
    browser.press("Enter");
    let turns = browser.run(
        "await until(() => document.querySelectorAll('.answer[aria-busy=false]').length === 2);
         return document.querySelectorAll('.turn').length;",
    );
    assert_eq!(turns, 2);
}

/// A long completion, stopped on the way.
fn stop(browser: &mut Browser) {
    let found = browser.run(
        "$('#settings').open = true; $('#max-tokens').value = 1900; $('#temperature').value = 1; return mode();
         function mode() { $('input[value=completion]').click(); return $('#prompt').placeholder; }",
    );
    assert_eq!(found, "Text to go on from");
    browser.click("#prompt");
    browser.type_text("Once upon a time");
    browser.press("Enter");
    browser.run("await until(() => [...document.querySelectorAll('.answer')].at(-1).querySelector('.text').textContent.length > 60);");
    browser.click("#stop");
    let found = browser.run(
        "const last = [...document.querySelectorAll('.answer')].at(-1);
         await until(() => last.getAttribute('aria-busy') === 'false');
         const before = last.querySelector('.text').textContent;
         await sleep(300);
         return { before, after: last.querySelector('.text').textContent, meter: last.querySelector('.meter').textContent,
                  stop: $('#stop').hidden, send: $('#send').hidden, tools: [...last.querySelectorAll('button')].map((b) => b.textContent) };",
    );
    assert!(found["before"]
        .as_str()
        .unwrap()
        .starts_with("Once upon a time"));
    assert_eq!(found["before"], found["after"]);
    assert!(
        found["meter"].as_str().unwrap().ends_with("stopped"),
        "{found:#}"
    );
    assert_eq!(found["stop"], true);
    assert_eq!(found["send"], false);
    assert_eq!(found["tools"], json!(["Copy", "Continue"]));
}

/// The heat map under the pointer and by keyboard, and the tables.
fn pruning(browser: &mut Browser) {
    browser.click("nav a[href=\"#pruning\"]");
    let map = browser.run(
        "await until(() => $('.map canvas')?.clientWidth > 0);
         $('.map').scrollIntoView({ block: 'center' });
         const box = $('.map canvas').getBoundingClientRect();
         return [box.x + 50, box.y + 26];",
    );
    browser.point([map[0].as_f64().unwrap(), map[1].as_f64().unwrap()]);
    let said = browser.run("return { tip: $('#tip').textContent, shown: !$('#tip').hidden, readout: $('.readout').textContent };");
    assert_eq!(said["shown"], true, "{said:#}");
    assert_eq!(said["tip"], said["readout"]);
    let tip = said["tip"].as_str().unwrap();
    assert!(tip.starts_with("Layer 0, expert 0: saliency "), "{tip}");
    assert!(tip.contains("kept") || tip.contains("removed"), "{tip}");
    browser.point([1.0, 1.0]);
    browser.run("$('.map').focus();");
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"] {
        browser.press(key);
    }
    let found = browser.run(
        "const rows = (kind) => document.querySelectorAll(`table.${kind} tbody tr`).length;
         const readout = $('.readout').textContent;
         $('#sorted').click(); $('#sorted').click();
         return { readout, layers: rows('layers'), losses: rows('losses'), facts: document.querySelectorAll('.facts div').length,
                  kept: $('table.layers td:last-child').textContent, label: $('.map').getAttribute('aria-label') };",
    );
    let readout = found["readout"].as_str().unwrap();
    assert!(readout.starts_with("Layer 1, expert 2: "), "{readout}");
    assert_eq!(found["layers"], 8);
    assert_eq!(found["losses"], 6, "five domains and all together");
    assert_eq!(found["facts"], 5);
    assert_eq!(found["kept"], "8 of 16");
    assert!(found["label"]
        .as_str()
        .unwrap()
        .contains("16 experts in 8 layers"));
}

#[test]
#[ignore = "needs Chromium"]
fn a_browser_compares_two_variants() {
    let workshop = Workshop::new();
    let server = server(
        &workshop,
        &["--variant", "0.25", "--variant", "original"],
        None,
    );
    let url = server.url().to_owned();
    let mut browser = Browser::start(&workshop.path(""));
    for (width, columns) in [(1280, 2), (375, 1)] {
        browser.open(&url, width, false);
        let offered = browser.run(
            "await until(() => $('#model').value);
             return [...$('#model').options].map((option) => option.textContent);",
        );
        let expected = json!(["demo-reap-0.5", "demo-reap-0.25", "demo (original)"]);
        assert_eq!(offered, expected);
        browser.run("$('#settings').open = true; $('#beside').value = 'demo-reap-0.25'; $('#beside').dispatchEvent(new Event('change'));");
        browser.click("#prompt");
        browser.type_text("Tell me a story about a cat.");
        browser.press("Enter");
        let found = browser.run(
            "const answers = () => [...document.querySelectorAll('.answer')];
             await until(() => answers().length === 2 && answers().every((it) => it.getAttribute('aria-busy') === 'false'));
             const left = answers().map((it) => Math.round(it.getBoundingClientRect().left));
             return { names: answers().map((it) => it.querySelector('h4').textContent), columns: new Set(left).size,
                      problems: document.querySelectorAll('#log .problem').length };",
        );
        let expected = json!({"names": ["demo-reap-0.5", "demo-reap-0.25"], "columns": columns, "problems": 0});
        assert_eq!(found, expected);
        browser.picture(&format!("beside-{width}"));
        check(&mut browser, &url, &format!("two answers at {width}"));
        browser.click("nav a[href=\"#pruning\"]");
        let kept = browser.run(
            "const kept = async (id) => {
               $('#which').value = id; $('#which').dispatchEvent(new Event('change'));
               await sleep(50);
               await until(() => $('#pruning-content').getAttribute('aria-busy') === 'false');
               return $('table.layers td:last-child')?.textContent ?? $('#pruning-content').textContent;
             };
             await until(() => $('table.layers'));
             return [await kept('demo-reap-0.25'), await kept('demo-reap-0.5'), await kept('demo')];",
        );
        assert_eq!([&kept[0], &kept[1]], ["12 of 16", "8 of 16"]);
        assert!(
            kept[2].as_str().unwrap().contains("nothing was removed"),
            "{kept}"
        );
        check(&mut browser, &url, &format!("three variants at {width}"));
    }
    server.stop();
}

#[test]
#[ignore = "needs Chromium"]
fn a_browser_asks_for_the_key_and_keeps_it_in_its_tab() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], Some("secret"));
    let mut browser = Browser::start(&workshop.path(""));
    browser.open(server.url(), 375, false);
    browser.run("await until(() => $('#locked').open);");
    browser.picture("locked-375");
    for (key, opens) in [("wrong", false), ("secret", true)] {
        browser.type_text(key);
        browser.press("Enter");
        let found = browser.run(
            "await until(() => $('#model').value || $('#locked-about').classList.contains('problem'));
             await sleep(100);
             return { open: $('#locked').open, model: $('#model').value, local: localStorage.length, session: sessionStorage.length,
                      value: $('#key').value, forget: $('#forget-key').hidden };",
        );
        let expected: Value = if opens {
            json!({"open": false, "model": "demo", "local": 0, "session": 1, "value": "", "forget": false})
        } else {
            json!({"open": true, "model": "", "local": 0, "session": 1, "value": "", "forget": true})
        };
        assert_eq!(found, expected, "{key}");
    }
    server.stop();
}
