//! The server or the line to it goes away and comes back: nothing is lost, nothing is there twice.

use crate::{devtools::Browser, line::Line, page::Page, support::*};

#[test]
fn a_page_survives_kill_9_of_the_server_without_loss_or_doubles() {
    let Some(browser) = Browser::shared() else { return };
    let server = Setup::on_its_own_address().start();
    let address = server.address();
    let mut ann = browser.open(&server);
    let mut bob = browser.open(&server);
    ann.is_called("Ann");
    ann.says("before");
    bob.shows("before");

    let dir = server.kill().dir;
    ann.says_its_state("Disconnected");
    bob.says_its_state("Disconnected");
    ann.writes("written while away");
    ann.writes("and this");
    ann.types("half a sen");
    ann.holds_back(&["written while away", "and this"], "Waiting for the connection");

    // Where no page looks for it, so that they miss what is said there.
    let elsewhere = Setup::at("127.0.0.1:0", dir.clone()).start();
    let mut carl = elsewhere.join();
    let missed = [r#"{"user":"Carl","content":"missed"}"#, r#"{"user":"Carl","content":"also"}"#];
    for message in missed {
        carl.says(message);
    }
    drop(elsewhere.kill());

    let server = Setup::at(address, dir).start();
    let all = ["before", "missed", "also", "written while away", "and this"];
    for page in [&mut ann, &mut bob] {
        page.is_connected();
        page.shows_only(&all);
        page.counts("5 messages");
        page.holds_back_nothing();
    }
    // Not from the beginning: it asked for what came behind the one message it had.
    let last = bob.tab.sockets().last().expect("a connection").clone();
    assert!(last.contains("/ws?after=1&epoch="), "{last}");
    assert_eq!(ann.draft(), "half a sen");
    ann.types("tence");
    ann.presses("Enter");
    bob.shows_only(&[&all[..], &["half a sentence"]].concat());
    ann.shows_only(&[&all[..], &["half a sentence"]].concat());
    assert_eq!(server.lines().len(), 6);
}

#[test]
fn a_message_that_the_server_never_read_arrives_once_it_is_back() {
    let Some(browser) = Browser::shared() else { return };
    let server = Setup::on_its_own_address().start();
    let address = server.address();
    let mut ann = browser.open(&server);
    ann.says("before");

    server.freezes();
    ann.writes("into the void");
    ann.holds_back(&["into the void"], "Sending…");
    // It stands below what she has said before, as it will when it has arrived.
    let is_first = "document.querySelector('#Pending .message').classList.contains('first')";
    ann.tab.comes_to(is_first, false);
    let dir = server.kill().dir;
    ann.says_its_state("Disconnected");
    ann.holds_back(&["into the void"], "Sent; will see whether it arrived");

    let server = Setup::at(address, dir).start();
    ann.shows_only(&["before", "into the void"]);
    ann.holds_back_nothing();
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn a_message_whose_echo_got_lost_is_not_sent_again() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let line = Line::to(server.address());
    let mut ann = browser.open_at(line.address());
    ann.says("again");

    line.falls_mute();
    // The same words as before: only where it stands tells the two apart.
    ann.writes("again");
    until("the server has stored it", || server.lines().len() == 2);
    ann.holds_back(&["again"], "Sending…");
    line.breaks();

    ann.shows_only(&["again", "again"]);
    ann.holds_back_nothing();
    ann.says("the last");
    assert_eq!(server.lines().len(), 3, "{:?}", server.lines());
    ann.shows_only(&["again", "again", "the last"]);
}

#[test]
fn try_now_does_not_wait_for_the_next_attempt() {
    let Some(browser) = Browser::shared() else { return };
    let server = Setup::on_its_own_address().start();
    let address = server.address();
    let mut ann = browser.open(&server);
    let dir = server.kill().dir;
    // Each wait is longer than the last.
    ann.counts_seconds();
    let tried = "(button => {
        if (button.hidden) return null;
        const before = attempts;
        button.click();
        return attempts - before;
    })(document.getElementById('Retry'))";
    assert_eq!(ann.tab.gives("it waits", tried), 1, "attempts at once");
    let _server = Setup::at(address, dir).start();
    ann.is_connected();
    ann.says("here again");
}

/// Whether a browser has a network, of which it tells its pages.
const NO_NETWORK: &str =
    r#"{ "offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }"#;
const A_NETWORK: &str =
    r#"{ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }"#;

impl Page {
    #[track_caller]
    fn has(&mut self, network: &str) {
        let params = serde_json::from_str(network).expect("JSON");
        self.tab.call("Network.emulateNetworkConditions", params);
    }
}

#[test]
fn a_page_that_is_told_that_its_network_is_gone_says_so_and_is_back_with_it() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let line = Line::to(server.address());
    let mut ann = browser.open_at(line.address());
    ann.says("before");
    // Nothing else tells her: the connection is open, and silent.
    line.falls_mute();
    ann.has(NO_NETWORK);
    ann.says_its_state("Disconnected");
    ann.writes("written while away");
    ann.holds_back(&["written while away"], "Waiting for the connection");
    line.breaks();
    ann.has(A_NETWORK);
    ann.is_connected();
    ann.shows_only(&["before", "written while away"]);
    ann.holds_back_nothing();
}

/// The first requests for these paths get this instead of an answer.
const LOSES_THE_FIRST: &str = "{
    const own = fetch, lost = new Set(['/me', '/channels']);
    window.fetch = (url, ...more) => (lost.delete(String(url).split('?')[0]) ? INSTEAD : own(url, ...more));
}";

#[test]
fn a_page_whose_first_requests_were_lost_or_met_a_full_server_asks_again() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    server.stores("dev", "before anybody came");
    for instead in [
        "Promise.reject(new TypeError('lost'))",
        "Promise.resolve(new Response('the server is full', { status: 503 }))",
    ] {
        let mut ann = Page { tab: browser.tab() };
        ann.tab.prepares(&LOSES_THE_FIRST.replace("INSTEAD", instead));
        ann.tab.goes_to(&format!("http://{}/", server.address()));
        ann.is_known();
        // It has the whole list: to whoever comes for the first time, nothing is new.
        ann.lists(&["messages", "dev"]);
    }
}

#[test]
fn a_page_in_a_folder_of_a_proxy_asks_for_nothing_elsewhere() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let line = Line::to(server.address());
    line.puts_in("/chat");
    let mut ann = browser.open_link(line.address(), "chat/");
    ann.is_complete();
    ann.clicks("#Text");
    ann.says("Hello from a folder");
    ann.shows_only(&["Hello from a folder"]);
    ann.asks_for("dev");
    ann.is_in("dev");
    ann.lists(&["messages", "dev"]);
    ann.clicks("#Text");
    ann.says("And here.");
    ann.tab.until("its name is proved", "!document.getElementById('Who').hidden");
    ann.presses("ArrowUp");
    ann.types(" Edited.");
    ann.presses("Enter");
    ann.shows_only(&["And here. Edited."]);
    ann.clicks("#Pins");
    ann.tab
        .comes_to("document.getElementById('PinnedState').textContent", "Nothing is pinned here.");
}
