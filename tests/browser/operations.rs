//! What people do with messages on the page: edit, delete, react, pin; and who is here and who types.

use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

use serde_json::{Value, json};

use crate::{
    devtools::{BROWSER_PATIENCE, Browser},
    page::{Page, Screen},
    support::*,
};

/// SHA-256 of `tc_anns`.
const ANNS: &str = "bcdcf89cf9e56211864ecd898fa869950f1ba389effb1c86b5ecd6059bfc194a";

/// The people of the random test, by their queries.
const PEOPLE: [&str; 4] =
    ["as=ann&key=the+key+of+ann", "as=zoe&key=the+key+of+ann", "as=bob&key=the+key+of+bob", ""];

/// The reactions below the messages in the document: key, number, and whether one takes part.
const CHIPS: &str = "[...document.querySelectorAll('#Log .chip')].map(e => [e.querySelector('.key').textContent, \
    e.querySelector('.count').textContent, e.getAttribute('aria-pressed')].join(' '))";

/// Which of the buttons at a message are hidden: react, edit, pin, delete.
const HIDDEN: &str = "[...document.querySelectorAll('.tools button')].map(e => e.hidden)";

impl Page {
    /// Moves the mouse over a message, and presses one of the buttons that come.
    #[track_caller]
    fn takes(&mut self, text: &str, what: &str) {
        self.is_known();
        self.points_at(text);
        self.clicks(&format!(".tools .{what}"));
    }

    /// Moves the mouse over a message, until the buttons are there.
    #[track_caller]
    fn points_at(&mut self, text: &str) {
        let has = format!(
            "!!document.querySelector('.tools')?.parentNode.textContent.includes({})",
            json!(text)
        );
        let deadline = Instant::now() + BROWSER_PATIENCE;
        loop {
            self.passes_over(text);
            if self.tab.ask(&has) == true {
                return;
            }
            assert!(Instant::now() < deadline, "the buttons never come to {text:?}");
        }
    }

    /// Moves the mouse to a message, from the left.
    #[track_caller]
    fn passes_over(&mut self, text: &str) {
        let place = format!(
            "(e => {{
                e.scrollIntoView({{ block: 'center' }});
                const {{ left, top, height }} = e.getBoundingClientRect();
                return [left + 5, top + height / 2];
            }})([...document.querySelectorAll('#Log .text, #Log pre')].find(e => e.textContent === {}))",
            json!(text)
        );
        let at = self.tab.gives(&format!("{text:?} is in the list"), &place);
        for x in [json!(1), at[0].clone()] {
            let params = json!({ "type": "mouseMoved", "x": x, "y": at[1] });
            self.tab.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Moves the mouse to the left edge, and waits until the page has noticed.
    #[track_caller]
    fn moves_the_mouse_out(&mut self) {
        let params = json!({ "type": "mouseMoved", "x": 1, "y": 300 });
        self.tab.call("Input.dispatchMouseEvent", params);
        self.tab.until("it is out of the list", "!document.querySelector('#Log:hover')");
    }

    /// Goes by keyboard from the box, backwards: its name and state, then the buttons of the last message.
    #[track_caller]
    fn goes_back_to_the_buttons(&mut self) {
        let is_there = "!!document.activeElement.closest('.tools')";
        for _ in 0..12 {
            self.presses_shift("Tab");
            if self.tab.ask(is_there) == true {
                return;
            }
        }
        panic!("the buttons are not behind the box");
    }

    /// Replaces what is in the box.
    #[track_caller]
    fn rewrites(&mut self, text: &str) {
        self.tab.until("a message is edited", "!document.getElementById('Editing').hidden");
        self.tab.ask("document.getElementById('Text').select()");
        self.types(text);
        self.presses("Enter");
    }

    #[track_caller]
    fn has_chips(&mut self, chips: &[&str]) {
        let same = format!("JSON.stringify({CHIPS}) === JSON.stringify({})", json!(chips));
        self.tab.until(&format!("the reactions are {chips:?}"), &same);
    }

    #[track_caller]
    fn is_marked_as(&mut self, words: &str) {
        let notes =
            "[...document.querySelectorAll('#Log .note')].some(e => e.textContent.includes(WORDS))";
        self.tab
            .until(&format!("it says {words}"), &notes.replace("WORDS", &json!(words).to_string()));
    }

    #[track_caller]
    fn tells(&mut self, words: &str) {
        let said = "document.getElementById('Notice').textContent.includes(WORDS)";
        self.tab
            .until(&format!("it says {words}"), &said.replace("WORDS", &json!(words).to_string()));
    }
}

#[test]
fn one_edits_reacts_pins_and_deletes_by_mouse_and_all_pages_show_it() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let (mut ann, mut bob) = browser.opens_for_ann_and_bob(&server);
    ann.says("helo");
    ann.says("second");
    ann.types("a draft");
    ann.takes("helo", "edit");
    ann.rewrites("hello");
    for page in [&mut ann, &mut bob] {
        page.shows_only(&["hello", "second"]);
        page.is_marked_as("edited");
    }
    ann.tab.until("the draft is back", "document.getElementById('Text').value === 'a draft'");

    bob.takes("hello", "react");
    bob.clicks("#Keys button");
    bob.has_chips(&["👍 1 true"]);
    ann.has_chips(&["👍 1 false"]);
    ann.clicks("#Log .chip");
    ann.has_chips(&["👍 2 true"]);
    let label = "document.querySelector('#Log .chip').getAttribute('aria-label')";
    ann.tab.comes_to(label, "👍, 2: Bob, you");
    ann.clicks("#Log .chip");
    bob.has_chips(&["👍 1 true"]);

    bob.takes("hello", "pin");
    ann.is_marked_as("pinned");
    ann.clicks("#Pins");
    ann.tab.until(
        "the list has it",
        "document.querySelector('#PinnedList .text')?.textContent === 'hello'",
    );
    ann.clicks("#PinnedList .acts button");
    ann.tab.until(
        "it is empty",
        "document.getElementById('PinnedState').textContent.includes('Nothing')",
    );
    ann.presses("Escape");
    bob.tab.until(
        "no pin is left",
        "![...document.querySelectorAll('#Log .note')].some(e => e.textContent.includes('pinned'))",
    );

    // What is another's cannot be changed, and the buttons are not there.
    bob.points_at("second");
    bob.tab.comes_to(HIDDEN, json!([false, true, false, true]));

    // Of all these lines, two are messages.
    for page in [&mut ann, &mut bob] {
        page.counts("2 messages");
    }
    ann.takes("hello", "delete");
    ann.clicks("#Delete .close");
    ann.takes("hello", "delete");
    ann.clicks("#Delete .bad");
    for page in [&mut ann, &mut bob] {
        page.shows_only(&["second"]);
        page.has_chips(&[]);
        page.counts("1 message");
        page.reloads();
        page.shows_only(&["second"]);
        page.counts("1 message");
    }
}

#[test]
fn the_buttons_go_with_the_mouse_after_a_click_on_one_of_them_or_in_a_dialog() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.says("first");
    ann.says("second");
    ann.takes("first", "pin");
    ann.is_marked_as("pinned");
    ann.points_at("second");
    ann.takes("first", "delete");
    ann.clicks("#Delete .close");
    ann.points_at("second");
    ann.takes("first", "react");
    ann.clicks("#Keys button");
    ann.has_chips(&["👍 1 true"]);
    ann.points_at("second");
    // What is typed into a dialog does not hold them, either.
    ann.takes("first", "react");
    ann.clicks("#OwnKey");
    ann.types("ok");
    ann.presses("Enter");
    ann.has_chips(&["👍 1 true", "ok 1 true"]);
    ann.points_at("second");

    // They stay where the keyboard has brought the focus.
    ann.clicks("#Text");
    ann.goes_back_to_the_buttons();
    ann.presses("ArrowUp");
    let at = "document.activeElement.closest('.message')?.querySelector('.text').textContent";
    ann.tab.comes_to(at, "first");
    ann.passes_over("second");
    ann.tab.comes_to(at, "first");
}

#[test]
fn the_buttons_go_away_with_the_mouse_unless_a_dialog_or_the_keyboard_needs_them() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let is_there = "document.querySelector('.tools') !== null";
    ann.says("hello");
    ann.is_known();
    ann.points_at("hello");
    ann.moves_the_mouse_out();
    ann.tab.comes_to(is_there, false);
    ann.takes("hello", "react");
    ann.has_focus_on("#Keys button");
    ann.moves_the_mouse_out();
    assert_eq!(ann.tab.ask(is_there), true);
    ann.presses("Escape");
    ann.tab.comes_to(is_there, false);

    ann.clicks("#Text");
    ann.passes_over("hello");
    ann.tab.comes_to(is_there, true);
    ann.goes_back_to_the_buttons();
    ann.moves_the_mouse_out();
    assert_eq!(ann.tab.ask(is_there), true);
}

#[test]
fn one_edits_reacts_and_deletes_by_keyboard() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_known();
    ann.says("first");
    ann.says("last");
    ann.presses("ArrowUp");
    ann.tab.until("the last one is edited", "document.getElementById('Text').value === 'last'");
    ann.presses("Escape");
    ann.tab.comes_to("document.getElementById('Text').value", "");
    ann.presses("ArrowUp");
    ann.rewrites("the last");
    ann.shows_only(&["first", "the last"]);
    ann.tab.until("it is edited no more", "document.getElementById('Editing').hidden");

    ann.goes_back_to_the_buttons();
    ann.presses("ArrowUp");
    let at = "document.activeElement.closest('.message')?.querySelector('.text').textContent";
    ann.tab.until("the focus is at the first message", &format!("{at} === 'first'"));
    ann.has_focus_on(".tools .delete");
    ann.presses("Enter");
    ann.tab.until("it asks", "document.getElementById('Delete').open");
    ann.has_focus_on("#Delete .close");
    ann.presses("Escape");
    ann.has_focus_on(".tools .delete");
    ann.presses("Enter");
    ann.has_focus_on("#Delete .close");
    ann.presses_shift("Tab");
    ann.has_focus_on("#Delete .bad");
    ann.presses("Enter");
    ann.shows_only(&["the last"]);
}

#[test]
fn the_message_that_is_edited_is_marked_until_that_is_given_up_by_key_or_button() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    server.makes("dev");
    let mut ann = browser.open(&server);
    ann.is_known();
    ann.says("first");
    ann.says("second");
    let marked = "[...document.querySelectorAll('#Log .editing .text')].map(e => e.textContent)";
    ann.takes("first", "edit");
    ann.tab.comes_to(marked, json!(["first"]));
    // It stays marked when it is drawn anew, here or after another channel.
    server.dir.append("{\"$op\":\"pin\",\"id\":1}\n");
    ann.is_marked_as("pinned");
    ann.tab.comes_to(marked, json!(["first"]));
    ann.chooses("dev");
    ann.tab.comes_to(marked, json!([]));
    ann.chooses("messages");
    ann.tab.comes_to(marked, json!(["first"]));
    ann.takes("second", "edit");
    ann.tab.comes_to(marked, json!(["second"]));
    ann.presses("Escape");
    ann.tab.comes_to(marked, json!([]));
    ann.presses("ArrowUp");
    ann.rewrites("the second");
    ann.shows_only(&["first", "the second"]);
    ann.tab.comes_to(marked, json!([]));

    // A phone has no such key, and a button that a thumb can hit.
    let keys = "document.querySelector('#Editing .keys').checkVisibility()";
    ann.presses("ArrowUp");
    ann.tab.comes_to(keys, true);
    ann.is_shown_on(Screen::Phone);
    ann.tab.comes_to(keys, false);
    let height = "document.getElementById('StopEditing').getBoundingClientRect().height >= 44";
    ann.tab.comes_to(height, true);
    ann.clicks("#StopEditing");
    ann.tab.comes_to(marked, json!([]));
    assert_eq!(ann.draft(), "");
}

#[test]
fn an_edit_that_is_refused_stays_in_the_box_and_one_of_a_deleted_message_becomes_a_draft() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::with(&["--max-message", "200"]);
    let mut ann = browser.open(&server);
    ann.is_known();
    ann.says("one");
    ann.presses("ArrowUp");
    let long = "x".repeat(300);
    ann.rewrites(&long);
    ann.tells("too long");
    assert_eq!(ann.draft(), long);
    // The operator deletes it meanwhile.
    server.dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    ann.tells("was deleted");
    assert_eq!(ann.draft(), long);
    ann.shows_only(&[]);
}

#[test]
fn what_others_put_into_edits_and_reactions_is_text() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    let bad = "<img src=x onerror=alert(1)>";
    let mut eve = server.join_at("/ws?as=%3Cb%3Eeve&key=the+key+of+eve");
    eve.says(r#"{"user":"eve","content":"before","more":1}"#);
    eve.says(&json!({ "$op": "react", "id": 1, "key": bad }).to_string());
    eve.says(&json!({ "$op": "react", "id": 1, "key": "\u{202e}a" }).to_string());
    // An edit's first key is $op, however it is spelled.
    eve.says(&format!(
        r#"{{"\u0024op":"edit","id":1,"data":{}}}"#,
        json!({ "user": "eve", "content": bad })
    ));
    eve.says(r#"{"about":1,"$op":"delete","id":1}"#);
    ann.shows(bad);
    ann.has_chips(&[&format!("{bad} 1 false"), "\\u202ea 1 false"]);
    assert_eq!(ann.tab.ask("document.querySelectorAll('#Log img, #Log b').length"), 0);
    // What only looks like an operation is a message.
    ann.tab.comes_to("document.querySelectorAll('#Log .text, #Log pre').length", 2);
}

#[test]
fn an_operation_finds_its_message_in_history_that_is_loaded_later() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut zoe = server.join_at("/ws?as=zoe&key=the+key+of+zoe");
    for number in 1..=900 {
        zoe.says(&json!({ "user": "zoe", "content": number.to_string() }).to_string());
    }
    zoe.says(r#"{"$op":"edit","id":5,"data":{"user":"zoe","content":"five"}}"#);
    zoe.says(r#"{"$op":"react","id":5,"key":"ok"}"#);
    zoe.says(r#"{"$op":"delete","id":6}"#);
    for _ in 0..250 {
        zoe.says(r#"{"$op":"pin","id":7}"#);
    }
    let mut ann = browser.open(&server);
    ann.tab.until(
        "all is loaded",
        "(document.getElementById('Scroll').scrollTop = 0, \
         document.getElementById('Top').textContent.includes('begins'))",
    );
    ann.shows("five");
    ann.has_chips(&["ok 1 false"]);
    ann.is_marked_as("pinned");
    assert_eq!(ann.texts()[3..6], ["4", "five", "7"]);
}

#[test]
fn who_is_here_and_who_types_is_shown_while_it_is_so() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.tab.until("one is here", "document.getElementById('Here').textContent === '1 here'");
    let mut bob = browser.open(&server);
    bob.is_called("Bob");
    ann.tab.until("two are here", "document.getElementById('Here').textContent === '2 here'");
    ann.tab.until("Bob is one", "document.getElementById('Here').title.includes('Bob')");
    ann.clicks("#Here");
    ann.tab.until("they are listed", "document.querySelectorAll('#PeopleList li').length === 2");
    ann.presses("Escape");
    bob.tab.until("he is told", "document.getElementById('Here').textContent === '2 here'");
    let typing = "document.getElementById('Typing').textContent";
    // It is shown for five seconds, so he goes on until she has looked.
    until("she sees that he types", || {
        bob.types("I am ");
        ann.tab.ask(typing) == "Bob is typing…"
    });
    bob.tab.ask("document.getElementById('Text').select()");
    bob.types("I am");
    bob.presses("Enter");
    ann.shows("I am");
    ann.tab.until("he types no more", "document.getElementById('Typing').textContent === ''");
    assert_eq!(server.lines().len(), 1);
    drop(bob);
    ann.tab.until("one is here", "document.getElementById('Here').textContent === '1 here'");
}

#[test]
fn no_button_is_offered_that_would_be_refused() {
    let Some(browser) = Browser::shared() else { return };
    let setup = Setup::new();
    let file = setup.dir.join("access");
    fs::write(&file, format!("ann {ANNS} * admin\n* - messages read,post\n")).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let server = setup.flags(&["--access", file.to_str().expect("a UTF-8 path")]).start();
    server.join().says(r#"{"user":"zoe","content":"claimed"}"#);
    let mut bob = browser.open(&server);
    bob.points_at("claimed");
    bob.tab.comes_to(HIDDEN, json!([false, true, true, true]));
    let mut ann = browser.open_link(server.address(), "#token=tc_anns");
    // Her rights come with the channels.
    ann.is_complete();
    ann.takes("claimed", "pin");
    ann.tab.comes_to(HIDDEN, json!([false, false, false, false]));
    bob.is_marked_as("pinned");
}

#[test]
fn a_phone_shows_the_buttons_after_a_tap_on_the_screen() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut ann = browser.open(&server);
    ann.is_known();
    ann.says("hello");
    ann.is_shown_on(Screen::Phone);
    for scheme in ["light", "dark"] {
        ann.is_seen_in(scheme);
        ann.clicks("#Log .text");
        ann.tab.until("the buttons come", "document.querySelector('.tools') !== null");
        let outside = "(({ left, right }) => left < 0 || right > innerWidth)(document.querySelector('.tools').getBoundingClientRect())";
        ann.tab.comes_to(outside, false);
        ann.clicks(".tools .react");
        ann.clicks("#Keys button");
        let count = if scheme == "light" { vec!["👍 1 true"] } else { vec![] };
        ann.has_chips(&count);
    }
}

/// The page's own module folds the whole log, its lines in a random order.
const FOLD: &str = "(async () => {
    const { Fold } = await import('/app/operations.js');
    const { members } = await import('/app/json.js');
    const text = await (await fetch('/messages')).text();
    const lines = text.split('\\n').filter(line => line).map(members);
    const fold = new Fold(), messages = [];
    for (const line of lines.sort(() => Math.random() - .5)) {
        const item = { id: line.id, raw: line.data, ts: line.ts, from: line.from };
        if (!fold.add(item)) messages.push(item);
    }
    const found = {};
    for (const { id, raw } of messages) {
        const state = fold.stateOf(id);
        if (state?.isDeleted) continue;
        found[id] = { data: JSON.parse(state?.edit?.data ?? raw) };
        if (state?.edit) found[id].edited = state.edit.ts;
        if (state?.isPinned) found[id].pinned = true;
        if (state?.reactions.size) found[id].reactions = Object.fromEntries(state.reactions);
    }
    return found;
})()";

#[test]
fn the_page_folds_random_operations_to_what_the_server_says_of_each_message() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    let mut page = browser.open(&server);
    let mut dice = Dice::new();
    let mut last_id = 0;
    let mut posted = Vec::new();
    for step in 0..300 {
        let who = PEOPLE[dice.below(4) as usize];
        let target = 1 + dice.below(last_id + 1);
        let key = ["a", "b", "<i>", "👍"][dice.below(4) as usize];
        let is_message = step % 8 == 0;
        let body = match dice.below(12) {
            _ if is_message => json!({ "said": step }),
            0..3 => json!({ "$op": "edit", "id": target, "data": { "edited": step } }),
            3 => json!({ "$op": "delete", "id": target }),
            4..7 => json!({ "$op": "react", "id": target, "key": key }),
            7..9 => json!({ "$op": "unreact", "id": target, "key": key }),
            9..11 => json!({ "$op": "pin", "id": target }),
            _ => json!({ "$op": "unpin", "id": target }),
        };
        let line = format!("POST /messages?{who}");
        let answer =
            server.asked(ask_with(&line, &["Content-Type: application/json"], &body.to_string()));
        if answer.status == 201 {
            last_id = json_of(&answer.body)["id"].as_u64().expect("an id");
            if is_message {
                posted.push(last_id);
            }
        }
    }
    assert!(last_id > 80, "few operations were accepted: {last_id}");
    let found = page.tab.ask(FOLD);
    for id in posted {
        let answer = server.asks(&format!("GET /messages/{id}"), &[]);
        let folded = found.get(id.to_string());
        if answer.status == 410 {
            assert_eq!(folded, None, "{id} is deleted");
            continue;
        }
        let mut state = json_of(&answer.body);
        for other in ["id", "ts", "from"] {
            state.as_object_mut().expect("an object").remove(other);
        }
        assert_eq!(folded, Some(&state), "{id}");
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}
