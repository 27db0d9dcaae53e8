//! People, programs and the file talk with each other through the page.

use serde_json::json;

use crate::{devtools::Browser, support::*};

#[test]
fn what_is_typed_is_sent_by_enter_and_seen_in_a_second_page() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let (mut ann, mut bob) = browser.opens_for_ann_and_bob(&server);

    ann.says("Hello, who is there?");
    bob.shows_from("Ann", "Hello, who is there?");
    bob.says("Me.");
    ann.shows_from("Bob", "Me.");

    ann.holds_back_nothing();
    ann.counts("2 messages");
    assert_eq!(
        server.lines(),
        [r#"{"user":"Ann","content":"Hello, who is there?"}"#, r#"{"user":"Bob","content":"Me."}"#,]
    );
}

#[test]
fn shift_and_enter_break_the_line_and_the_break_stays() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let mut bob = browser.open(&server);

    ann.types("one");
    ann.presses_shift("Enter");
    ann.types("  two");
    assert_eq!(ann.draft(), "one\n  two");
    ann.presses("Enter");

    bob.shows_only(&["one\n  two"]);
    // Seen as two lines, too.
    let height = "document.querySelector('#Log .text').getClientRects()[0].height";
    let two_lines = bob.tab.ask(height).as_f64().expect("a height");
    bob.says("one");
    bob.tab.until("one line is lower", &format!("{two_lines} > 1.9 * {}", last_height()));
}

fn last_height() -> String {
    "[...document.querySelectorAll('#Log .text')].at(-1).getClientRects()[0].height".into()
}

#[test]
fn the_name_and_an_unsent_text_are_there_after_a_reload() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut zoe = browser.open(&server);
    zoe.is_called("Zoë \"x\"");
    zoe.types("not yet");

    zoe.reloads();
    assert_eq!(zoe.name(), "Zoë \"x\"");
    assert_eq!(zoe.draft(), "not yet");

    zoe.presses("Enter");
    zoe.shows_from("Zoë \"x\"", "not yet");
    assert_eq!(server.lines(), [r#"{"user":"Zoë \"x\"","content":"not yet"}"#]);
}

#[test]
fn lines_that_others_append_to_the_file_appear_in_the_page() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(SEED);
    let mut ann = browser.open(&server);
    ann.shows_only(&["Welcome", "Hi", "Ka", "me", "ha", "me", "haaaa"]);

    let file = server.dir.file();
    shell(&format!(
        r#"echo '{{"sender": "cron", "content": "the backup is done"}}' >> '{0}'
           echo '{{"attic": {{"degrees": 21.50}}}}' >> '{0}'"#,
        file.display()
    ));
    ann.shows_from("cron", "the backup is done");
    // As it was written: 21.50 is no 21.5.
    ann.shows("{\"attic\": {\"degrees\": 21.50}}");
    ann.counts("9 messages");
}

#[test]
fn the_snippet_of_the_original_readme_works_in_a_page_of_localhost() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(SEED);
    let mut tab = browser.tab();
    let port = server.address().port();
    tab.goes_to(&format!("http://localhost:{port}/"));

    tab.ask("window.logged = []; console.log = thing => { logged.push(thing); }; 0");
    let snippet = r#"
        const ws = new WebSocket("ws://127.0.0.1:8000/ws");
        ws.onmessage = (event) => console.log(JSON.parse(event.data));
        ws.onopen = () => ws.send(JSON.stringify({ user: "Alice", content: "Hello, world!" }));
        0"#;
    tab.ask(&snippet.replace("8000", &port.to_string()));

    tab.until("both answers are logged", "logged.length === 2");
    let logged = tab.ask("logged");
    assert_eq!(logged[0]["type"], "message_history");
    assert_eq!(logged[0]["data"].as_array().map(Vec::len), Some(7));
    assert_eq!(logged[0]["data"][0], json!({ "sender": "Admin", "content": "Welcome" }));
    assert_eq!(logged[1]["type"], "new_message");
    assert_eq!(logged[1]["data"], json!({ "user": "Alice", "content": "Hello, world!" }));
}
