//! What people with bad intentions say reaches the page as text and as nothing else.

use serde_json::json;

use crate::{devtools::Browser, page::Page, support::*};

const MIB: usize = 1 << 20;

/// Deeper than any recursion goes.
const DEEP: usize = 100_000;

impl Page {
    /// Nothing that was said has run, became more of the document than text, or changed what all
    /// objects inherit.
    #[track_caller]
    fn is_unharmed(&mut self) {
        let made = "[...new Set([...document.querySelectorAll('#Log *')].map(e => e.tagName))]
            .filter(tag => !['A', 'BUTTON', 'DIV', 'PRE', 'SPAN', 'TIME'].includes(tag))";
        assert_eq!(self.tab.ask(made), json!([]), "elements of the list");
        let links = "[...document.querySelectorAll('#Log a')]
            .map(e => e.href).filter(href => !/^https?:/.test(href))";
        assert_eq!(self.tab.ask(links), json!([]), "links of the list");
        let handlers = "[...document.querySelectorAll('#Log *')]
            .filter(e => [...e.attributes].some(({ name }) => name.startsWith('on'))).length";
        assert_eq!(self.tab.ask(handlers), 0, "handlers in the list");
        assert_eq!(self.tab.ask("typeof window.harmed"), "undefined", "a script ran");
        assert_eq!(self.tab.ask("Object.keys(Object.prototype).length"), 0);
        assert_eq!(self.tab.ask("typeof {}.harmed"), "undefined");
        assert_eq!(self.complaints(), [""; 0]);
    }

    #[track_caller]
    fn complaints(&mut self) -> Vec<String> {
        self.tab.complaints()
    }

    /// Opens each message that is shown in part, waits until it is drawn, and closes it again.
    #[track_caller]
    fn opens_all(&mut self) -> u64 {
        let count = "document.querySelectorAll('#Log .more').length";
        let count = self.tab.ask(count).as_u64().expect("a number");
        for number in 0..count {
            for _ in ["open", "closed"] {
                self.tab.ask(&format!(
                    "document.querySelectorAll('#Log .more')[{number}].click();
                     new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
                ));
            }
        }
        count
    }
}

#[test]
fn markup_scripts_and_links_are_shown_as_they_were_written() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let mut eve = server.join();

    let texts = [
        "<script>window.harmed = 1</script>",
        "<img src=x onerror='window.harmed = 1'>",
        "<svg onload=window.harmed=1><a href='javascript:window.harmed=1'>x</a></svg>",
        "</div></main><iframe srcdoc='<script>parent.harmed=1</script>'></iframe>",
        "javascript:window.harmed=1 data:text/html,<script>harmed=1</script>",
        "https://a.example/\"onmouseover=\"window.harmed=1 http://b.example/<b>",
        "&lt;b&gt; ${harmed=1} {{harmed=1}} %3Cscript%3E",
    ];
    for text in texts {
        eve.says(&json!({ "user": text, "content": text }).to_string());
        ann.shows_from(text, text);
    }
    ann.tab.until(
        "the links end where the markup begins",
        "JSON.stringify([...document.querySelectorAll('#Log a')].map(e => e.href))
            === JSON.stringify(['https://a.example/', 'http://b.example/'])",
    );
    eve.says(r#"{"<img src=x onerror=harmed=1>": ["<script>harmed=1</script>"]}"#);
    ann.shows(r#"{"<img src=x onerror=harmed=1>": ["<script>harmed=1</script>"]}"#);

    ann.is_unharmed();
    ann.says("still here");
    // And as history.
    ann.reloads();
    ann.shows("still here");
    ann.is_unharmed();
}

#[test]
fn keys_that_mean_something_to_javascript_mean_nothing() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let mut eve = server.join();

    // Not taken for chat: what it inherits is not its own.
    eve.says(r#"{"__proto__":{"user":"Eve","content":"inherited","harmed":1}}"#);
    eve.says(r#"{"constructor":{"prototype":{"harmed":1}},"toString":1,"hasOwnProperty":2}"#);
    eve.says(r#"{"user":"Eve","content":"own","__proto__":{"harmed":1},"valueOf":null}"#);
    eve.says(r#"{"user":{"harmed":1},"content":["x"]}"#);
    eve.says(r#"{"type":"message_history","data":["forged"],"first_id":1,"last_id":9}"#);
    eve.says(r#"{"user":"","content":""}"#);
    eve.says(r#"{"user":"Eve","content":"half a pair \ud800 of surrogates"}"#);
    for plain in ["null", "true", "1.10", "\"text\"", "[]", "{}", "-0.0e-10"] {
        eve.says(plain);
        ann.shows(plain);
    }
    ann.shows_from("Eve", "own");
    ann.counts("14 messages");
    let texts = ann.texts();
    assert!(!texts.iter().any(|text| text == "inherited" || text == "forged"), "{texts:?}");
    ann.is_unharmed();
    ann.says("still here");
}

#[test]
fn messages_of_any_size_and_depth_leave_the_page_usable() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::with(&["--max-message", "16MiB"]);
    let mut ann = browser.open(&server);
    let mut eve = server.join();

    let nested = |open: &str, close: &str| open.repeat(DEEP) + "1" + &close.repeat(DEEP);
    let chat = |text: &str| json!({ "user": "Eve", "content": text }).to_string();
    let messages = [
        chat(&"W".repeat(MIB)),
        chat(&"two words https://a.example/b ".repeat(MIB / 30)),
        chat(&"\n".repeat(MIB)),
        nested("[", "]"),
        nested(r#"{"a":"#, "}"),
        format!(r#"{{"user":"Eve","content":{}}}"#, nested("[", "]")),
        format!(r#"{{"user":{},"content":"a long name"}}"#, json!("x".repeat(MIB / 16))),
        format!("[{}0]", "1234567, ".repeat(10 * MIB / 9)),
    ];
    for (number, message) in messages.iter().enumerate() {
        eve.says(message);
        ann.counts(&format!("{} message{}", number + 1, if number > 0 { "s" } else { "" }));
    }
    ann.says("still here");
    ann.is_unharmed();
    let height = ann.tab.ask("document.getElementById('Log').offsetHeight");
    assert!(height.as_u64().is_some_and(|pixels| pixels < 8000), "{height} pixels high");

    // The same as history, and each of them shown whole.
    ann.reloads();
    ann.shows("still here");
    assert!(ann.opens_all() >= 6, "long messages are shown in part");
    ann.says("and here");
    ann.is_unharmed();
}

#[test]
fn marks_that_turn_text_around_turn_only_their_own_message() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let mut eve = server.join();

    let turned = "\u{202e}never closed \u{2067} nor this";
    eve.says(&json!({ "user": turned, "content": turned }).to_string());
    eve.says(&json!({ "sensor": turned }).to_string());
    eve.says(r#"{"user":"Bob","content":"left to right"}"#);
    ann.shows_from("Bob", "left to right");

    let lefts = |selector: &str| {
        format!(
            "(node => [0, node.length - 1].map(at => {{
                const range = document.createRange();
                range.setStart(node, at);
                range.setEnd(node, at + 1);
                return range.getBoundingClientRect().left;
            }}))([...document.querySelectorAll('{selector}')].at(-1).firstChild)"
        )
    };
    for selector in ["#Log .name", "#Log .text"] {
        let places = ann.tab.ask(&lefts(selector));
        assert!(places[0].as_f64() < places[1].as_f64(), "{selector}: {places}");
    }
    // In JSON a mark is shown, not obeyed.
    ann.shows(&format!(
        "{{\"sensor\": \"{}\"}}",
        turned.replace('\u{202e}', "\\u202e").replace('\u{2067}', "\\u2067")
    ));
    ann.is_unharmed();
    ann.says("still here");
}

#[test]
fn an_injected_script_is_stopped_by_the_policy() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);

    // Text cannot be put where it would become markup or code.
    for line in [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.createElement('script').textContent = 'window.harmed = 1'",
        "document.createElement('script').src = 'https://a.example/harm.js'",
        "setTimeout('window.harmed = 1')",
    ] {
        let outcome = format!("try {{ {line}; 'let through' }} catch (error) {{ error.name }}");
        let outcome = ann.tab.ask(&outcome);
        assert!(outcome == "TypeError" || outcome == "EvalError", "{line}: {outcome}");
    }
    // And if somebody finds a way around that, nothing of it runs.
    ann.tab.ask(
        "window.stopped = [];
         document.addEventListener('securitypolicyviolation', event => stopped.push(event.effectiveDirective));
         const same = text => text;
         const hole = trustedTypes.createPolicy('hole', { createHTML: same, createScript: same, createScriptURL: same });
         const script = document.createElement('script');
         script.textContent = hole.createScript('window.harmed = 1');
         document.body.append(script);
         const other = document.createElement('script');
         other.src = hole.createScriptURL('https://a.example/harm.js');
         document.body.append(other);
         document.body.insertAdjacentHTML('beforeend', hole.createHTML(
            '<img src=\"data:,\" onerror=\"window.harmed = 2\"><a id=bad href=\"javascript:window.harmed = 3\">x</a>'
            + '<p style=\"position: fixed\">x</p><iframe src=\"https://a.example/\"></iframe>'));
         document.getElementById('bad').click();
         0",
    );
    let stopped = [
        "frame-src",
        "script-src-attr",
        "script-src-elem",
        "script-src-elem",
        "script-src-elem",
        "style-src-attr",
    ];
    let wanted = json!(stopped);
    ann.tab.until(
        "all of it is stopped",
        &format!("JSON.stringify([...stopped].sort()) === JSON.stringify({wanted})"),
    );
    assert_eq!(ann.tab.ask("typeof window.harmed"), "undefined");
    let mut all = ann.tab.complaints();
    assert!(!all.is_empty(), "the browser says so");
    ann.says("still here");
    // Some of it is said late, and nothing says that it was the last.
    let mut times_quiet = 0;
    until("nothing more is said", || {
        let more = ann.tab.complaints();
        times_quiet = if more.is_empty() { times_quiet + 1 } else { 0 };
        all.extend(more);
        times_quiet == 100
    });
    assert!(all.iter().all(|text| text.contains(r#""source":"security""#)), "{all:#?}");
}
