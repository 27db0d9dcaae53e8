//! Several channels in one page: making, choosing, what is unread, and what stays with each.

use std::fs;

use serde_json::json;

use crate::{
    devtools::Browser,
    line::Line,
    page::{Page, Screen},
    support::*,
};

impl Server {
    #[track_caller]
    pub fn makes(&self, name: &str) {
        assert_eq!(self.asks(&format!("PUT /{name}"), &[]).status, 201);
    }

    #[track_caller]
    pub fn stores(&self, name: &str, text: &str) {
        let message = json!({ "user": "Bob", "content": text }).to_string();
        let kind = ["Content-Type: application/json"];
        let answer = self.asked(ask_with(&format!("POST /{name}"), &kind, &message));
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

/// The first message in sight, and how far from the top it is.
const TOP: &str = "(() => {
    const edge = document.getElementById('Scroll').getBoundingClientRect().top;
    const row = [...document.querySelectorAll('#Log .row')].find(e => e.getBoundingClientRect().bottom > edge);
    return [row.querySelector('.text').textContent, Math.round(row.getBoundingClientRect().top)];
})()";

/// What the page says of a text that cannot be a name.
const RULE: &str = "A name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit.";

impl Page {
    #[track_caller]
    fn marks_as_new(&mut self, text: &str) {
        self.tab.until(
            "the rule stands above it",
            &format!(
                "(rule => rule?.nextElementSibling.querySelector('.text').textContent === {})
                 (document.querySelector('#Log .rule.new'))",
                json!(text)
            ),
        );
    }

    #[track_caller]
    fn refuses(&mut self, words: &str) {
        let said = "document.getElementById('Why').textContent";
        self.tab.until("it says why", &format!("{said}.includes({})", json!(words)));
    }
}

#[test]
fn a_channel_is_made_and_what_is_said_there_stays_there() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.lists(&["messages"]);
    ann.says("for everybody");

    ann.asks_for("Dev Ops");
    ann.is_in("dev-ops");
    ann.has_focus_on("#Scroll");
    ann.lists(&["messages", "dev-ops"]);
    ann.shows_only(&[]);
    ann.clicks("#Text");
    ann.says("for a few");
    ann.shows_only(&["for a few"]);

    ann.chooses("messages");
    ann.shows_only(&["for everybody"]);
    assert_eq!(server.lines().len(), 1);
    let file = server.dir.join("channels").join("dev-ops.txt");
    let text = fs::read_to_string(file).expect("a file");
    assert!(text.contains("for a few") && text.lines().count() == 1, "{text}");
    // It is connected to one channel at a time, and comes back to where it was.
    ann.chooses("dev-ops");
    until("it asks for what came since", || {
        let last = ann.tab.sockets().last().expect("a connection");
        last.contains("/dev-ops/ws?after=1&epoch=")
    });
    ann.shows_only(&["for a few"]);
}

#[test]
fn a_name_that_is_none_is_refused_in_words_for_people() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::with(&["--max-channels", "1"]);
    let mut ann = browser.open(&server);
    ann.clicks("#New");
    ann.has_focus_on("#NewName");
    for (name, words) in [
        ("me", "The server keeps this name for itself. Choose another one."),
        ("ws", "The server keeps this name for itself. Choose another one."),
        ("a/b", RULE),
        ("a.b", RULE),
        ("-a", RULE),
        ("..", RULE),
        ("<b>&\"", RULE),
        (&"x".repeat(64), RULE),
    ] {
        ann.tab.ask("document.getElementById('NewName').select()");
        ann.types(name);
        ann.presses("Enter");
        ann.tab.comes_to("document.getElementById('Why').textContent", words);
        ann.has_focus_on("#NewName");
    }
    ann.presses("Escape");
    ann.has_focus_on("#New");
    ann.asks_for("one");
    ann.is_in("one");
    ann.asks_for("two");
    ann.refuses("--max-channels");
    // One that is there is simply shown.
    ann.tab.ask("document.getElementById('NewName').select()");
    ann.types("messages");
    ann.presses("Enter");
    ann.is_in("messages");
    ann.lists(&["messages", "one"]);
    let server = server.kill();
    ann.says_its_state("Disconnected");
    ann.asks_for("three");
    ann.refuses("cannot be reached");
    drop(server);
}

#[test]
fn what_is_said_elsewhere_is_counted_until_it_is_read() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    server.stores("dev", "before anybody came");
    let mut ann = browser.open(&server);
    let mut bob = browser.open(&server);
    // Nothing is new to a person who comes for the first time.
    ann.lists(&["messages", "dev"]);
    ann.is_titled("#messages – txtcord");

    bob.chooses("dev");
    bob.clicks("#Text");
    bob.says("one");
    ann.lists(&["messages", "dev 1"]);
    bob.says("two");
    ann.lists(&["messages", "dev 2"]);
    ann.is_titled("(2) #messages – txtcord");
    bob.lists(&["messages", "dev"]);
    bob.is_titled("#dev – txtcord");
    let spoken = "document.querySelector('#List a[href=\"#dev\"] .unseen').textContent";
    ann.tab.comes_to(spoken, ", 2 unread");
    let title = "document.querySelector('#List a[href=\"#dev\"]').title";
    ann.tab.comes_to(title, "dev: 2 unread; edits and reactions count, too");
    let weight = "Number(getComputedStyle(document.querySelector('#List a.unread')).fontWeight)";
    assert!(ann.tab.ask(weight).as_u64().is_some_and(|weight| weight > 600));

    // A channel that comes later is new with all that is in it, and a count ends somewhere.
    server.makes("ops");
    for number in 1..=120 {
        server.stores("ops", &format!("{number}"));
    }
    ann.lists(&["messages", "dev 2", "ops 99+"]);
    ann.is_titled("(99+) #messages – txtcord");

    ann.chooses("dev");
    ann.marks_as_new("one");
    ann.lists(&["messages", "dev", "ops 99+"]);
    ann.chooses("ops");
    ann.shows_last("120");
    ann.is_titled("#ops – txtcord");
    ann.chooses("messages");
    ann.lists(&["messages", "dev", "ops"]);
    // What was marked is read, and marked no more.
    ann.chooses("dev");
    ann.shows_only(&["before anybody came", "one", "two"]);
    ann.tab.until("nothing is marked", "!document.querySelector('#Log .rule.new')");
}

#[test]
fn a_reload_keeps_the_channel_and_how_far_one_has_read() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    for name in ["dev", "ops"] {
        server.makes(name);
    }
    let mut ann = browser.open(&server);
    ann.lists(&["messages", "dev", "ops"]);
    ann.chooses("dev");
    server.stores("dev", "seen");
    ann.shows("seen");
    server.stores("ops", "not seen");
    ann.lists(&["messages", "dev", "ops 1"]);

    ann.reloads();
    ann.is_in("dev");
    ann.lists(&["messages", "dev", "ops 1"]);
    // What is said while nobody is there.
    ann.tab.goes_to("about:blank#away");
    server.stores("dev", "missed");
    server.stores("messages", "missed");
    let address = server.address();
    ann.tab.goes_to(&format!("http://{address}/#dev"));
    ann.is_in("dev");
    ann.marks_as_new("missed");
    ann.lists(&["messages 1", "dev", "ops 1"]);

    // Another file of the same name is another history, of which nothing is read.
    ann.chooses("messages");
    let file = server.dir.join("channels").join("dev.txt");
    fs::remove_file(&file).expect("a file");
    ann.lists(&["messages", "ops 1"]);
    fs::write(&file, "\"a\"\n\"b\"\n").expect("a file");
    ann.lists(&["messages", "dev 2", "ops 1"]);
}

#[test]
fn a_draft_stays_with_its_channel() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    let mut ann = browser.open(&server);
    ann.types("to everybody\nand more");
    ann.chooses("dev");
    assert_eq!(ann.draft(), "");
    ann.clicks("#Text");
    ann.types("to a few");
    ann.chooses("messages");
    assert_eq!(ann.draft(), "to everybody\nand more");
    ann.chooses("dev");
    assert_eq!(ann.draft(), "to a few");
    // Where there is no channel, it does not get into another one's.
    ann.follows("#Nowhere");
    ann.has_no_channel("no channel");
    ann.reloads_anywhere();
    ann.has_no_channel("no channel");
    ann.follows("#dev");
    ann.is_in("dev");
    assert_eq!(ann.draft(), "to a few");
    ann.follows("#messages");
    ann.is_in("messages");
    assert_eq!(ann.draft(), "to everybody\nand more");
    ann.clicks("#Text");
    ann.presses("Enter");
    ann.shows("to everybody\nand more");
    ann.chooses("dev");
    ann.chooses("messages");
    assert_eq!(ann.draft(), "");
}

#[test]
fn the_back_button_leads_to_the_channel_before() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    server.stores("dev", "in dev");
    let mut ann = browser.open(&server);
    ann.says("in messages");
    ann.chooses("dev");
    ann.shows_only(&["in dev"]);
    ann.tab.ask("history.back()");
    ann.is_in("messages");
    ann.shows_only(&["in messages"]);
    ann.tab.ask("history.forward()");
    ann.is_in("dev");
    ann.shows_only(&["in dev"]);
}

#[test]
fn the_keyboard_alone_goes_everywhere() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    for name in ["a", "b", "c"] {
        server.makes(name);
    }
    let mut ann = browser.open(&server);
    ann.lists(&["messages", "a", "b", "c"]);
    ann.presses_alt("ArrowDown");
    ann.is_in("a");
    ann.presses_alt("ArrowUp");
    ann.is_in("messages");
    ann.presses_alt("ArrowUp");
    ann.is_in("c");
    ann.presses_alt("ArrowDown");
    ann.is_in("messages");
    // From one unread channel to the next.
    server.stores("b", "new");
    ann.lists(&["messages", "a", "b 1", "c"]);
    ann.presses_alt_shift("ArrowDown");
    ann.is_in("b");
    ann.lists(&["messages", "a", "b", "c"]);
    ann.presses_alt_shift("ArrowDown");
    ann.presses_alt_shift("ArrowUp");
    assert_eq!(ann.tab.ask("location.hash"), "#b", "nothing is unread");
    // Without Alt an arrow moves in what one writes.
    ann.clicks("#Text");
    ann.types("text");
    ann.presses("ArrowDown");
    ann.is_in("b");

    ann.tab.ask("document.querySelector('#List a').focus()");
    for _ in 0..2 {
        ann.presses("Tab");
    }
    ann.has_focus_on("#List a[href='#b']");
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(ann.tab.ask(outline), "solid", "one sees where the focus is");
    ann.presses("Tab");
    ann.presses("Enter");
    ann.is_in("c");
    ann.tab.ask("document.getElementById('New').focus()");
    ann.presses("Enter");
    ann.has_focus_on("#NewName");
    ann.types("d");
    ann.presses("Enter");
    ann.is_in("d");
}

#[test]
fn on_a_phone_the_channels_are_in_a_drawer() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    let mut ann = browser.open(&server);
    for screen in [Screen::SmallPhone, Screen::Phone] {
        ann.is_shown_on(screen);
        ann.tab.until("it is away", "document.getElementById('Channels').inert");
        server.stores("dev", "new");
        let label = "document.getElementById('Open').getAttribute('aria-label')";
        ann.tab.until("the button says so", &format!("{label} === 'Channels, 1 unread'"));

        let is_open = "document.getElementById('Open').getAttribute('aria-expanded')";
        ann.clicks("#Open");
        ann.has_focus_on("#List [aria-current]");
        ann.tab.comes_to(is_open, "true");
        ann.clicks("#List [aria-current]");
        ann.tab.comes_to(is_open, "false");
        ann.clicks("#Open");
        ann.presses("Escape");
        ann.has_focus_on("#Open");
        ann.tab.comes_to(is_open, "false");
        ann.clicks("#Open");
        ann.taps_outside();
        ann.has_focus_on("#Open");
        ann.tab.comes_to(is_open, "false");

        ann.clicks("#Open");
        ann.tab.until(
            "it has slid in",
            "document.getElementById('Channels').getBoundingClientRect().left === 0",
        );
        let small = "[...document.querySelectorAll('#Open, #List a, #New')]
            .filter(e => e.getBoundingClientRect().height < 44).length";
        ann.tab.comes_to(small, 0);
        ann.chooses("dev");
        ann.tab.comes_to(is_open, "false");
        ann.has_focus_on("#Scroll");
        let wide = "document.documentElement.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth";
        ann.tab.comes_to(wide, false);
        ann.follows("#messages");
        ann.is_in("messages");
    }
    // On a desk it is always there.
    ann.is_shown_on(Screen::Wide);
    ann.tab.until("it is there", "!document.getElementById('Channels').inert");
    ann.chooses("dev");
}

#[test]
fn a_channel_that_is_put_away_leaves_the_list_and_its_page_says_so() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    for name in ["dev", "ops"] {
        server.makes(name);
    }
    let mut ann = browser.open(&server);
    ann.lists(&["messages", "dev", "ops"]);
    let put_away = |name: &str| {
        let file = server.dir.join("channels").join(format!("{name}.txt"));
        fs::remove_file(file).expect("a file");
    };
    put_away("ops");
    ann.lists(&["messages", "dev"]);
    ann.chooses("dev");
    ann.clicks("#Text");
    ann.types("half a sen");
    put_away("dev");
    ann.has_no_channel("#dev is not there any more");
    ann.lists(&["messages"]);
    ann.is_titled("txtcord");
    ann.clicks("#Absent button");
    ann.is_in("messages");
    ann.clicks("#Text");
    ann.says("goes on");
    // What was being written comes back with the channel.
    server.makes("dev");
    ann.lists(&["messages", "dev"]);
    ann.chooses("dev");
    assert_eq!(ann.draft(), "half a sen");
    // And a channel that comes back while its page is open is shown again.
    put_away("dev");
    ann.has_no_channel("#dev is not there any more");
    server.makes("dev");
    ann.is_in("dev");
}

#[test]
fn a_link_to_a_channel_leads_there_and_one_to_none_offers_to_make_it() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    server.stores("dev", "in dev");
    let mut ann = browser.open_link(server.address(), "#dev");
    ann.is_in("dev");
    ann.shows_only(&["in dev"]);

    let mut bob = browser.open_link(server.address(), "#plans");
    bob.has_no_channel("There is no channel #plans");
    bob.lists(&["messages", "dev"]);
    bob.clicks("#Absent button:last-child");
    bob.is_in("plans");
    ann.lists(&["messages", "dev", "plans"]);
    bob.follows("#me");
    bob.has_no_channel("There is no channel #me");
    until("it is connected to none", || {
        server.asks("GET /metrics", &[]).body.contains("\ntxtcord_clients 1\n")
    });
    bob.clicks("#Absent button:last-child");
    bob.has_no_channel("The server keeps this name for itself");
    bob.clicks("#Absent button");
    bob.is_in("messages");
}

#[test]
fn an_address_that_somebody_made_up_is_text_and_nothing_else() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open_link(server.address(), "#<img src=x onerror=window.harmed=1>");
    ann.has_no_channel("cannot be its name");
    let connected = |page: &mut Page| page.tab.sockets().len();
    assert_eq!(connected(&mut ann), 0);
    let long = format!("#{}", "x".repeat(70_000));
    for hash in [
        "#../x",
        "#..",
        "#%2e%2e",
        "#%00",
        "#%0a",
        "#%",
        "#%ff",
        "#WS",
        "#Dev",
        "#dev/ws",
        "#dev?x",
        "#dev.txt",
        "#//evil.example",
        "#javascript:window.harmed=1",
        "#<script>window.harmed=1</script>",
        "#%3Cscript%3Ewindow.harmed=1%3C/script%3E",
        "#\u{202e}dev",
        "#__proto__",
        &long,
    ] {
        ann.follows(hash);
        ann.has_no_channel("cannot be its name");
        ann.follows("#messages");
        ann.is_in("messages");
    }
    for name in ["constructor", "tostring", "log", "scroll", "form", "text", "name", "list", "top"]
    {
        ann.follows(&format!("#{name}"));
        ann.has_no_channel(&format!("There is no channel #{name}"));
        server.makes(name);
        ann.is_in(name);
        let moved =
            "[document.documentElement, document.body].some(e => e.scrollTop || e.scrollLeft)";
        assert_eq!(ann.tab.ask(moved), false, "no part of the page is called {name}");
    }
    let ids =
        "[...document.querySelectorAll('[id]')].map(e => e.id).filter(id => !/^[A-Z]/.test(id))";
    assert_eq!(ann.tab.ask(ids), json!([]), "what an address of a channel could name");
    assert_eq!(ann.tab.ask("typeof window.harmed"), "undefined");
    assert_eq!(ann.tab.ask("document.querySelectorAll('main img, main script').length"), 0);
}

#[test]
fn where_one_may_only_read_there_is_nothing_to_write_in() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    let line = Line::to(server.address());
    line.replaces(r#""may":["read","post"]"#, r#""may":["read"]       "#);
    let mut ann = browser.open_link(line.address(), "");
    ann.is_in("messages");
    let words = "(e => e.checkVisibility() && e.innerText)(document.querySelector('#ReadOnly p'))";
    ann.tab.until(
        "it says so",
        &format!("{words} === 'You may read this channel, and not write in it.'"),
    );
    ann.tab.until("there is no box", "document.getElementById('Form').hidden");
    server.stores("messages", "to be read");
    ann.shows("to be read");

    // What one may not read is not there.
    line.replaces(r#""may":["read","post"]"#, r#""may":[]             "#);
    line.breaks();
    ann.has_no_channel("not open to everybody");
    ann.lists(&[]);
}

#[test]
fn what_was_not_delivered_waits_in_its_own_channel() {
    let Some(browser) = Browser::shared() else { return };
    let server = Setup::on_its_own_address().start();
    server.makes("dev");
    let address = server.address();
    let mut ann = browser.open(&server);
    ann.chooses("dev");
    let dir = server.kill().dir;
    ann.says_its_state("Disconnected");
    ann.clicks("#Text");
    ann.writes("for dev");
    ann.clicks("#List a[href='#messages']");
    ann.holds_back_nothing();
    let unsent = "[...document.querySelectorAll('#List a')]
        .map(e => e.querySelector('.unsent').checkVisibility())";
    ann.tab.comes_to(unsent, json!([false, true]));
    let server = Setup::at(address, dir).start();
    ann.is_in("messages");
    ann.shows_only(&[]);
    ann.tab.reloads();
    ann.is_in("messages");
    ann.tab.until("it is told after a reload", &format!("{unsent}[1] === true"));
    // It asked whether to leave, as with whatever is not delivered.
    let asked = ann.tab.complaints();
    assert!(asked.iter().all(|text| text.contains("beforeunload")), "{asked:?}");
    ann.chooses("dev");
    ann.shows_only(&["for dev"]);
    ann.holds_back_nothing();
    ann.chooses("messages");
    ann.tab.comes_to(unsent, json!([false, false]));
    assert_eq!(server.lines().len(), 0);
}

#[test]
fn the_list_is_true_again_after_the_server_was_away() {
    let Some(browser) = Browser::shared() else { return };
    let server = Setup::on_its_own_address().start();
    for name in ["dev", "ops"] {
        server.makes(name);
    }
    let address = server.address();
    let mut ann = browser.open(&server);
    ann.lists(&["messages", "dev", "ops"]);
    let dir = server.kill().dir;
    ann.says_its_state("Disconnected");
    let channels = dir.join("channels");
    fs::remove_file(channels.join("ops.txt")).expect("a file");
    fs::write(channels.join("new.txt"), "1\n2\n").expect("a file");
    let server = Setup::at(address, dir).start();
    ann.lists(&["messages", "dev", "new 2"]);
    server.stores("dev", "told by the stream");
    ann.lists(&["messages", "dev 1", "new 2"]);
}

#[test]
fn a_channel_opens_at_the_first_new_message_or_where_it_was_left() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    for number in 1..=60 {
        server.stores("dev", &format!("{number} old"));
    }
    let mut ann = browser.open(&server);
    ann.chooses("dev");
    ann.shows_last("60 old");
    ann.chooses("messages");
    for number in 1..=60 {
        server.stores("dev", &format!("{number} new"));
    }
    ann.lists(&["messages", "dev 60"]);
    ann.chooses("dev");
    ann.marks_as_new("1 new");
    ann.tab.until(
        "it is near the top",
        "(gap => gap > 0 && gap < 100)(document.querySelector('#Log .rule.new').getBoundingClientRect().top
            - document.getElementById('Scroll').getBoundingClientRect().top)",
    );
    // They are unread until one has gone to the end.
    ann.lists(&["messages", "dev 60"]);
    ann.reloads();
    ann.marks_as_new("1 new");
    ann.lists(&["messages", "dev 60"]);
    ann.clicks("#Jump");
    ann.lists(&["messages", "dev"]);

    ann.wheels_up(700);
    let read = ann.tab.ask(TOP);
    ann.chooses("messages");
    ann.chooses("dev");
    ann.shows("60 new");
    ann.tab.comes_to(TOP, read);
}

#[test]
fn what_is_done_with_messages_is_not_unread_where_the_page_has_seen_it() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    for number in 1..=60 {
        server.stores("dev", &format!("{number} old"));
    }
    let mut zoe = server.join_at("/dev/ws?as=zoe&key=the+key+of+zoe&limit=0");
    let mut ann = browser.open(&server);
    ann.chooses("dev");
    ann.shows_last("60 old");
    // She reads above, and sees no new message.
    ann.wheels_up(700);
    zoe.says(r#"{"$op":"pin","id":60}"#);
    let pinned = "document.querySelector('#Log .row:last-child .note')?.textContent === 'pinned'";
    ann.tab.until("it is pinned", pinned);
    ann.chooses("messages");
    ann.lists(&["messages", "dev"]);

    // A new message that is deleted is new no more.
    ann.chooses("dev");
    zoe.says(r#"{"user":"zoe","content":"one"}"#);
    let jump = "document.getElementById('Jump').textContent";
    ann.tab.until("it is new", &format!("{jump} === '↓  1 new message'"));
    zoe.says(r#"{"$op":"delete","id":62}"#);
    ann.tab.until("nothing is new", &format!("{jump} === '↓  Latest messages'"));
    ann.chooses("messages");
    ann.lists(&["messages", "dev"]);

    // Messages alone are counted of what she has left unread; of what comes later, each line.
    ann.chooses("dev");
    zoe.says(r#"{"user":"zoe","content":"two"}"#);
    zoe.says(r#"{"$op":"react","id":64,"key":"+"}"#);
    zoe.says(r#"{"$op":"pin","id":64}"#);
    ann.tab.until("it is new", &format!("{jump} === '↓  1 new message'"));
    ann.shows("two");
    ann.tab.until("it is pinned", pinned);
    ann.chooses("messages");
    ann.lists(&["messages", "dev 1"]);
    ann.is_titled("(1) #messages – txtcord");
    zoe.says(r#"{"user":"zoe","content":"three"}"#);
    ann.lists(&["messages", "dev 2"]);
}

#[test]
fn a_page_that_nobody_looks_at_learns_what_is_new_without_a_stream() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    let mut ann = browser.open(&server);
    ann.lists(&["messages", "dev"]);
    let hides = |page: &mut Page, is_hidden: &str| {
        page.tab.ask(&format!(
            "Object.defineProperty(document, 'hidden', {{ value: {is_hidden}, configurable: true }});
             document.dispatchEvent(new Event('visibilitychange')); 0"
        ));
    };
    ann.tab.ask(
        "window.streams = [];
         window.EventSource = class extends EventSource {
             constructor(...args) { super(...args); streams.push(this); }
         };
         0",
    );
    hides(&mut ann, "false");
    ann.tab.until("it follows", "streams.some(stream => stream.readyState === EventSource.OPEN)");
    hides(&mut ann, "true");
    let ended = "streams.every(stream => stream.readyState === EventSource.CLOSED)";
    assert_eq!(ann.tab.ask(ended), true, "no stream");
    server.stores("dev", "said meanwhile");
    ann.is_titled("(1) #messages – txtcord");
    hides(&mut ann, "false");
    server.stores("dev", "told by the stream");
    ann.lists(&["messages", "dev 2"]);
}

#[test]
fn a_page_that_names_another_server_shows_its_one_chat() {
    let Some(browser) = Browser::shared() else { return };
    let (own, other) = (Server::start(), Server::on(SEED));
    own.makes("dev");
    let named = format!("?server=ws://{}/ws", other.address());
    let mut ann = browser.open_link(own.address(), &named);
    ann.is_connected();
    ann.shows("Welcome");
    let is_shown = "document.getElementById('Channels').checkVisibility()";
    ann.tab.until("there are no channels", &format!("!{is_shown}"));
    ann.clicks("#Text");
    ann.says("to the other one");
    assert_eq!((own.lines().len(), other.lines().len()), (0, 8));
}
