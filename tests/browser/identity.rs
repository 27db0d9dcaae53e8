//! Who one is on the page: a pseudonym that nobody else can have, or a name by a token; and who others
//! are.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::{devtools::Browser, page::Page, support::*};

/// SHA-256 of `tc_anns` and `tc_bobs`.
const ANNS: &str = "bcdcf89cf9e56211864ecd898fa869950f1ba389effb1c86b5ecd6059bfc194a";
const BOBS: &str = "85b66599187a940d2d9201ea1e190f2de02fa8578e60e0729c4c71d5400baf87";

/// The token that the browser keeps.
const TOKEN: &str = "localStorage.getItem('txtcord token')";

/// The identities that stand beside the names, one for each group of messages.
const MARKS: &str = "[...document.querySelectorAll('#Log .who')]\
    .map(who => (who.querySelector('.name')?.textContent ?? '') + (who.querySelector('.mark')?.title ?? ''))";

impl Page {
    /// Waits until the page says this of who one is.
    #[track_caller]
    fn is_somebody(&mut self, words: &str) {
        let text = "document.getElementById('WhoText').textContent";
        self.tab
            .until(&format!("it says {words:?}"), &format!("{text}.includes({})", json!(words)));
    }

    /// Types a key or a token into the panel, in place of what is there.
    #[track_caller]
    fn gives(&mut self, secret: &str) {
        self.clicks("#Secret");
        self.tab.ask("document.getElementById('Secret').select()");
        self.types(secret);
        self.presses("Enter");
    }

    /// Waits until the panel says why it does not take what was typed, which is still there.
    #[track_caller]
    fn is_refused_because(&mut self, words: &str) {
        let said = "(e => e.checkVisibility() && e.textContent.includes(WORDS))\
            (document.getElementById('SecretWhy'))";
        let said = said.replace("WORDS", &json!(words).to_string());
        self.tab.until(&format!("the panel says {words:?}"), &said);
        self.has_focus_on("#Secret");
    }

    #[track_caller]
    fn runs(&mut self, script: &str) -> String {
        self.tab.ask(script).as_str().expect("a text").to_owned()
    }
}

#[test]
fn a_visitor_has_a_name_that_nobody_else_can_have_without_doing_anything() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_called("Ann");
    ann.is_somebody("and nobody else can be this Ann.");
    let mut listener = server.join();
    ann.says("hello");
    let heard = listener.hears(r#"{"user":"Ann","content":"hello"}"#);
    let from = heard.from.expect("a pseudonym");
    assert!(from.starts_with("Ann~"), "{from}");
    // A reload is the same person, and what was said has its sender still.
    ann.reloads();
    ann.is_somebody(&format!("You are {from}"));
    ann.tab.until("the sender is marked", &format!("{MARKS}[0]?.includes({})", json!(from)));
    // Under another name it is the same person.
    ann.is_called("Annika");
    ann.says("me again");
    let heard = listener.hears(r#"{"user":"Annika","content":"me again"}"#);
    assert_eq!(heard.from, Some(from.replacen("Ann~", "Annika~", 1)));
    // A claim has no mark, and what somebody claims does not hide who said it.
    listener.say(r#"{"user":"Annika","content":"I am Annika"}"#);
    ann.shows("I am Annika");
    ann.tab.comes_to(&format!("{MARKS}.at(-1)"), "Annika");
    server.join_at("/ws?as=eve&key=correct+horse").says(r#"{"user":"Annika","content":"or I"}"#);
    ann.shows_from("eve", "or I");
}

#[test]
fn a_key_moves_to_another_device() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_called("Ann");
    ann.is_somebody("nobody else");
    ann.clicks("#Who");
    ann.clicks("#Secret");
    ann.types("correct horse battery staple");
    ann.presses("Enter");
    let me = server.gets("/me?as=Ann&key=correct+horse+battery+staple");
    let from = serde_json::from_str::<serde_json::Value>(&me).expect("JSON")["from"].clone();
    ann.is_somebody(from.as_str().expect("a sender"));
    ann.clicks("#Text");
    ann.says("from here");
    ann.tab.until("its sender is that one", &format!("{MARKS}[0]?.includes({from})"));
    // One that is too short or too long is told so, and changes nothing.
    ann.clicks("#Who");
    ann.gives("short");
    ann.is_refused_because("8 characters or more");
    ann.gives(&"x".repeat(300));
    ann.is_refused_because("a key has 8 to 256 bytes");
    ann.is_somebody(from.as_str().expect("a sender"));
}

#[test]
fn a_key_may_have_letters_of_any_language() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_called("Ann");
    ann.is_known();
    for (key, query) in [
        ("grün und größer", "gr%C3%BCn+und+gr%C3%B6%C3%9Fer"),
        ("это мой ключ", "%D1%8D%D1%82%D0%BE+%D0%BC%D0%BE%D0%B9+%D0%BA%D0%BB%D1%8E%D1%87"),
    ] {
        ann.clicks("#Who");
        ann.gives(key);
        let me = server.gets(&format!("/me?as=Ann&key={query}"));
        let from = serde_json::from_str::<serde_json::Value>(&me).expect("JSON")["from"].clone();
        ann.is_somebody(from.as_str().expect("a sender"));
        ann.is_connected();
        ann.clicks("#Text");
        ann.says(key);
        // What is said and what is changed are from the same person.
        ann.presses("ArrowUp");
        ann.tab.until("it is edited", "!document.getElementById('Editing').hidden");
        ann.types(", changed");
        ann.presses("Enter");
        ann.shows(&format!("{key}, changed"));
    }
}

#[test]
fn half_a_letter_in_a_name_is_left_out() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.tab.ask(
        "(box => { box.value = 'Ann\\ud83d'; box.dispatchEvent(new Event('change')); })
         (document.getElementById('Name'))",
    );
    ann.is_somebody("nobody else can be this Ann.");
}

/// A server with these rules.
fn with_rules(rules: &str) -> Server {
    let setup = Setup::new();
    write_rules(&setup, rules);
    let file = setup.dir.join("access");
    setup.flags(&["--access", file.to_str().expect("a UTF-8 path")]).start()
}

fn write_rules(setup: &Setup, rules: &str) {
    let file = setup.dir.join("access");
    fs::write(&file, rules).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// A server where Ann may do everything, and Bob may read.
fn with_access() -> Server {
    with_rules(&format!("ann {ANNS} * admin\nbob {BOBS} messages read\n"))
}

#[test]
fn a_token_that_is_not_accepted_is_told_where_it_was_typed_and_changes_nothing() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_access();
    let mut ann = browser.open_link(server.address(), "");
    ann.has_no_channel("not open to everybody");
    ann.clicks("#Absent .buttons button");
    ann.gives("tc_wrong");
    ann.is_refused_because("The server did not accept this token");
    ann.is_refused_because("the server does not know this token");
    assert_eq!(ann.tab.ask(TOKEN), json!(null), "it is not kept");
    ann.gives("tc_anns");
    ann.is_connected();
    ann.is_somebody("You are ann, by a token");
    ann.tab.until("the panel is closed", "document.getElementById('Identity').hidden");
    assert_eq!(ann.tab.ask(TOKEN), "tc_anns");

    // Nor does another one, by a link.
    ann.follows("#token=tc_wrong");
    ann.is_refused_because("The server did not accept this token");
    ann.is_somebody("You are ann, by a token");
    ann.is_connected();
    assert_eq!(ann.tab.ask(TOKEN), "tc_anns");
    ann.presses("Escape");
    ann.clicks("#Text");
    ann.says("still ann");
    ann.shows_from("ann", "still ann");

    // And when nobody answers.
    ann.clicks("#Who");
    let server = server.kill();
    ann.gives("tc_bobs");
    ann.is_refused_because("cannot be reached now");
    assert_eq!(ann.tab.ask(TOKEN), "tc_anns");
    drop(server);
}

#[test]
fn a_wrong_token_takes_nothing_from_who_has_a_key() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_called("Ann");
    let me = ann.runs("document.getElementById('WhoText').textContent");
    ann.clicks("#Who");
    ann.gives("tc_wrong");
    ann.is_refused_because("The server did not accept this token");
    ann.presses("Escape");
    ann.has_focus_on("#Who");
    ann.is_somebody(&me);
    ann.clicks("#Text");
    ann.says("as before");
    ann.reloads();
    ann.is_somebody(&me);
}

#[test]
fn who_has_followed_a_link_with_a_wrong_token_can_go_on_without_it() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_rules("* - messages read,post\n");
    let mut bob = browser.open_link(server.address(), "#token=%00wrong");
    bob.is_refused_because("The server did not accept this token");
    bob.is_connected();
    let mut ann = browser.open_link(server.address(), "#token=tc_wrong");
    ann.is_refused_because("The server did not accept this token");
    // She did not come to be a guest.
    ann.is_somebody("You are guest-");
    let is_told = "document.getElementById('WhoText').checkVisibility()";
    assert_eq!(ann.tab.ask(is_told), false);
    ann.clicks("#Without");
    ann.tab.until("the panel is closed", "document.getElementById('Identity').hidden");
    ann.is_connected();
    ann.clicks("#Text");
    ann.says("without it");
    // In the panel that she opens herself, it is as always.
    ann.clicks("#Who");
    ann.tab.comes_to(is_told, true);
    ann.tab.comes_to("document.getElementById('Without').checkVisibility()", false);
}

#[test]
fn a_token_that_is_taken_back_is_told_and_works_again_when_it_is_given_back() {
    let Some(browser) = Browser::shared() else { return };
    let (both, bob) = (format!("ann {ANNS} * admin\n* - * read\n"), format!("bob {BOBS} * read\n"));
    let server = with_rules(&both);
    // A link that was copied may have taken a line end with it.
    let mut ann = browser.open_link(server.address(), "#token=%20tc_anns%0A");
    ann.is_complete();
    ann.is_somebody("You are ann, by a token");
    ann.clicks("#Text");
    ann.types("half a sen");
    write_rules(server.setup(), &bob);
    server.signal("HUP");
    ann.is_somebody("The server does not know this token");
    ann.tab.until("it offers a way out", "document.getElementById('Forget').checkVisibility()");
    assert_eq!(ann.draft(), "half a sen");
    // It is not forgotten: the operator may have made a mistake.
    assert_eq!(ann.tab.ask(TOKEN), "tc_anns");
    write_rules(server.setup(), &both);
    server.signal("HUP");
    ann.is_somebody("You are ann, by a token");
    ann.tab.until("the panel is closed", "document.getElementById('Identity').hidden");
    ann.is_in("messages");
    ann.clicks("#Text");
    ann.presses("Enter");
    ann.shows_from("ann", "half a sen");
}

#[test]
fn a_link_with_a_token_makes_somebody_and_leaves_the_address_at_once() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_access();
    let mut ann = browser.open_link(server.address(), "#token=tc_anns");
    ann.is_connected();
    ann.is_somebody("You are ann, by a token");
    assert_eq!(ann.runs("location.href"), format!("http://{}/", server.address()));
    let history = ann.tab.ask("performance.getEntriesByType('navigation').length");
    assert_eq!(history, 1, "without another visit");
    ann.clicks("#Text");
    ann.says("by token");
    ann.shows_from("ann", "by token");
    let mut listener = server.join_at("/ws?token=tc_anns&limit=0");
    ann.says("again");
    assert_eq!(listener.hears_one().from.as_deref(), Some("ann"));
    // It is kept, and can be forgotten.
    ann.reloads();
    ann.is_somebody("You are ann");
    ann.clicks("#Who");
    ann.clicks("#Forget");
    ann.has_no_channel("not open to everybody");
    // And can be typed again.
    ann.clicks("#Absent .buttons button");
    ann.clicks("#Secret");
    ann.types("tc_anns");
    ann.presses("Enter");
    ann.is_connected();
    ann.is_somebody("You are ann");
}

#[test]
fn one_who_may_only_read_has_no_box_to_write_in() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_access();
    let mut bob = browser.open_link(server.address(), "#token=tc_bobs");
    bob.is_connected();
    bob.tab.until(
        "there is a sentence and no box",
        "document.getElementById('Form').hidden && !document.getElementById('ReadOnly').hidden",
    );
    // Nobody tells him to say hello.
    bob.tab.comes_to("document.querySelector('#Empty h2').checkVisibility()", true);
    bob.tab.comes_to("document.querySelector('#Empty p').checkVisibility()", false);
    let is_seen = "(({ bottom }) => bottom > 0 && bottom < innerHeight)\
        (document.getElementById('ReadOnly').getBoundingClientRect())";
    bob.tab.until("the sentence stands clear of the edge", is_seen);
    server.join_at("/ws?token=tc_anns").says(r#"{"user":"ann","content":"news"}"#);
    bob.shows_from("ann", "news");
}

#[test]
fn the_making_of_channels_is_offered_to_none_who_may_not() {
    let Some(browser) = Browser::shared() else { return };
    let rules = format!("ann {ANNS} * admin\nbob {BOBS} * read,post\n* - messages read,post\n");
    let server = with_rules(&rules);
    let offered = "[...document.querySelectorAll('#New, #Absent button')]\
        .filter(e => e.checkVisibility()).map(e => e.textContent)";
    let mut eve = browser.open_link(server.address(), "");
    eve.is_complete();
    assert_eq!(eve.tab.ask(offered), json!([]));
    eve.follows("#plans");
    eve.has_no_channel("There is no channel #plans");
    assert_eq!(eve.tab.ask(offered), json!(["Go to #messages"]));
    // With her token she may, and nobody need load the page anew.
    eve.follows("#token=tc_anns");
    eve.tab.comes_to(offered, json!(["+ New channel"]));
    eve.asks_for("plans");
    eve.is_in("plans");

    // What a token is good for shows when it is tried.
    let mut bob = browser.open_link(server.address(), "#token=tc_bobs");
    bob.is_complete();
    bob.asks_for("dev");
    let why = "document.getElementById('Why').textContent.startsWith('You may not make a channel')";
    bob.tab.until("it says so in words for people", why);
}

#[test]
fn one_who_may_not_write_any_more_is_told_and_the_text_is_kept() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_rules(&format!("ann {ANNS} messages read,post\n"));
    let mut ann = browser.open_link(server.address(), "#token=tc_anns");
    ann.is_complete();
    ann.clicks("#Text");
    write_rules(server.setup(), &format!("ann {ANNS} messages read\n"));
    server.signal("HUP");
    until("the rules are others", || !server.gets("/me?token=tc_anns").contains("post"));
    ann.writes("after");
    ann.holds_back(&["after"], "Not taken by the server.");
    let notice = "document.getElementById('Notice').textContent";
    ann.tab.until("it says why", &format!("{notice}.includes('the right post')"));
    ann.tab.until("there is no box", "document.getElementById('Form').hidden");
    ann.tab.until("it says so", "document.getElementById('ReadOnly').checkVisibility()");
}

#[test]
fn one_who_may_only_read_without_a_token_can_use_one_to_write() {
    let Some(browser) = Browser::shared() else { return };
    let server = with_rules(&format!("ann {ANNS} * read,post\n* - messages read\n"));
    let mut ann = browser.open_link(server.address(), "");
    ann.is_connected();
    ann.clicks("#ReadOnly button");
    ann.gives("tc_wrong");
    ann.is_refused_because("The server did not accept this token");
    ann.presses("Escape");
    ann.has_focus_on("#ReadOnly button");
    ann.presses("Enter");
    ann.gives("tc_anns");
    ann.tab.until("there is a box", "!document.getElementById('Form').hidden");
    ann.clicks("#Text");
    ann.says("by token");
    ann.shows_from("ann", "by token");
}
