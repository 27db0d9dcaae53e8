//! Long histories: what is out of sight is not in the document, and comes when it is wanted.

use serde_json::json;

use crate::{devtools::Browser, support::*};

/// More than the page asks for at first, by far.
const MANY: u64 = 5_000;

/// Rows that a page may have in its document, however long the history: screens of them, not
/// thousands.
const MOST_ROWS: u64 = 300;

fn numbered(count: u64) -> String {
    let line = |number: u64| {
        let name = ["Ann", "Bob", "Cleo"][(number / 4 % 3) as usize];
        json!({ "user": name, "content": format!("{number} and some words") }).to_string() + "\n"
    };
    (1..=count).map(line).collect()
}

#[test]
fn older_messages_come_when_one_scrolls_up_and_the_document_stays_small() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(numbered(MANY));
    let mut ann = browser.open(&server);
    // Which of the older lines are messages is not known yet.
    ann.counts("about 5,000 messages");
    ann.shows_last("5000 and some words");
    assert!(*ann.numbers().start() > MANY - MOST_ROWS, "a window, not all");

    ann.tab.ask(
        "window.most = 0;
         new MutationObserver(() => { most = Math.max(most, document.querySelectorAll('#Log > *').length); })
            .observe(document.getElementById('Log'), { childList: true });
         0",
    );
    ann.tab.until(
        "the first message is reached",
        "document.getElementById('Scroll').scrollTop = 0,
         document.querySelector('#Log .text').textContent === '1 and some words'",
    );
    assert_eq!(*ann.numbers().start(), 1);
    let most = ann.tab.ask("most").as_u64().expect("a number");
    assert!((100..=MOST_ROWS).contains(&most), "{most} rows in the document");
    ann.tab.until("it says so", "document.getElementById('Top').textContent.includes('begins')");
    ann.counts("5,000 messages");

    // What is live goes on below, out of sight, and the last message is one key away.
    let mut bob = server.join_at("/ws?limit=0");
    bob.says(r#"{"user":"Bob","content":"5001 is said now"}"#);
    ann.tab.until(
        "it is noticed",
        "document.getElementById('Jump').textContent.includes('1 new message')",
    );
    assert_eq!(*ann.numbers().start(), 1);
    ann.tab.ask("document.getElementById('Scroll').focus()");
    ann.presses("End");
    ann.shows_last("5001 is said now");
    ann.numbers();
}

#[test]
fn new_messages_do_not_move_what_one_reads_further_up_and_are_marked() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(numbered(200));
    let mut ann = browser.open(&server);
    let mut bob = server.join_at("/ws?limit=0");
    ann.shows_last("200 and some words");

    ann.wheels_up(1500);
    let top = "(() => {
        const edge = document.getElementById('Scroll').getBoundingClientRect().top;
        const rows = [...document.querySelectorAll('#Log .row')];
        const row = rows.find(e => e.getBoundingClientRect().bottom > edge);
        return [row.querySelector('.text').textContent, Math.round(row.getBoundingClientRect().top)];
    })()";
    let read = ann.tab.ask(top);
    for number in 201..=203 {
        bob.says(&format!(r#"{{"user":"Bob","content":"{number} is new"}}"#));
    }
    ann.tab.until(
        "the button counts them",
        "document.getElementById('Jump').textContent.includes('3 new messages')",
    );
    ann.is_titled("(3) #messages – txtcord");
    assert_eq!(ann.tab.ask(top), read, "nothing has moved");

    ann.clicks("#Jump");
    ann.shows_last("203 is new");
    ann.tab.until(
        "the rule stands above the first new one, in sight",
        "(rule => rule && rule.textContent === 'New messages'
            && rule.parentNode.querySelector('.text').textContent === '201 is new'
            && rule.getBoundingClientRect().top > document.getElementById('Scroll').getBoundingClientRect().top)
         (document.querySelector('#Log .rule.new'))",
    );
    ann.tab.until("the button is gone", "document.getElementById('Jump').hidden");
    ann.is_titled("#messages – txtcord");

    // At the end again, the list follows what comes.
    bob.says(r#"{"user":"Bob","content":"204 is seen at once"}"#);
    ann.shows_last("204 is seen at once");
    ann.tab.until(
        "the end is in sight",
        "(e => e.scrollHeight - e.scrollTop - e.clientHeight < 2)(document.getElementById('Scroll'))",
    );
}

/// Has the page hear a message, as if the server had said it.
const HEARS: &str = "window.hears = id => newest.onmessage(new MessageEvent('message', { data:
    `{\"type\":\"new_message\",\"data\":{\"user\":\"Bob\",\"content\":\"${id} is said now\"},\"id\":${id}}` })); 0";

/// How far the list is from its end.
const BELOW: &str = "(({ scrollHeight, scrollTop, clientHeight }) => Math.round(scrollHeight - scrollTop - clientHeight))\
    (document.getElementById('Scroll'))";

/// Comes to how far the list is from its end once two frames are drawn: what the page does later than that
/// has been seen by people. A pixel more or less is rounding.
const BELOW_IN_TWO_FRAMES: &str = "(async () => {
    for (let frame = 0; frame < 2; frame++) await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return BELOW;
})()";

/// For some frames in a row, a message comes and somebody scrolls up a little, both before the next frame.
const SCROLLS_UP_IN_A_FLOOD: &str = "(async () => {
    for (let id = 201; id <= 220; id++) {
        hears(id);
        document.getElementById('Scroll').scrollTop -= 10;
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    }
})()";

#[test]
fn one_can_scroll_up_while_messages_come_without_a_pause() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(numbered(200));
    let mut ann = browser.open(&server);
    ann.shows_last("200 and some words");
    ann.tab.ask(HEARS);
    ann.tab.ask(SCROLLS_UP_IN_A_FLOOD);
    let below = ann.tab.ask(BELOW).as_i64().expect("a number");
    assert!(below >= 200, "{below} pixels from the end");
    // Who is at the end again stays there.
    ann.tab.ask("document.getElementById('Scroll').focus()");
    ann.presses("End");
    ann.tab.ask("hears(221)");
    ann.shows_last("221 is said now");
    ann.tab.comes_to(BELOW, 0);
}

#[test]
fn the_end_of_the_list_stays_in_sight_while_a_draft_grows_and_shrinks() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::on(numbered(200));
    let mut ann = browser.open(&server);
    ann.shows_last("200 and some words");
    ann.tab.until("the end is in sight", &format!("{BELOW} < 2"));
    let below = BELOW_IN_TWO_FRAMES.replace("BELOW", BELOW);
    let mut bob = server.join_at("/ws?limit=0");
    let twelve = "a line\n".repeat(12);
    for (number, text) in [(201, twelve.as_str()), (202, "one\ntwo"), (203, "")] {
        ann.tab.ask("document.getElementById('Text').select()");
        match text {
            "" => ann.presses("Backspace"),
            _ => ann.types(text),
        }
        assert_eq!(ann.draft(), text);
        assert!(ann.tab.ask(&below).as_i64() < Some(2), "with the draft {text:?}");
        bob.says(&json!({ "user": "Bob", "content": format!("{number} is new") }).to_string());
        ann.shows_last(&format!("{number} is new"));
        assert!(ann.tab.ask(&below).as_i64() < Some(2), "{number} is hidden by {text:?}");
    }
    for lines in 2..6 {
        ann.types("a line");
        ann.presses_shift("Enter");
        assert!(ann.tab.ask(&below).as_i64() < Some(2), "with {lines} lines");
    }
    // Who reads further up is not taken to the end.
    ann.wheels_up(700);
    let before = ann.tab.ask(&below).as_i64().expect("a number");
    ann.types(&twelve);
    let after = ann.tab.ask(&below).as_i64().expect("a number");
    assert!(before >= 690 && after >= before, "{before} and then {after} pixels from the end");
}
