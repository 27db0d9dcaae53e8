//! The chat page as a person sees and uses it. Where on it things are is known here and nowhere
//! else in the tests.

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    devtools::{BROWSER_PATIENCE, Browser, Tab},
    support::*,
};

/// The texts of the messages in the document, oldest first. Half a pair of surrogates would not get
/// through the protocol.
const TEXTS: &str = "[...document.querySelectorAll('#Log .text, #Log pre')]
    .map(e => e.textContent.toWellFormed())";

/// What a page asks for, and the echo of what it says, may take as long as it takes on a busy machine. It
/// looks for the latter at an interval of its own.
const IS_PATIENT: &str = "{
    const { timeout } = AbortSignal, { setInterval } = window;
    AbortSignal.timeout = ms => timeout.call(AbortSignal, 100 * ms);
    window.setInterval = (work, ms) => setInterval(work, 100 * ms);
}";

/// Notes whether the page's newest WebSocket is open and has brought the history. What the page says of
/// its connection is less: it goes on saying "Connected" for a moment while it connects anew.
const NOTES_HISTORY: &str = "{
    window.newest = null;
    window.hasHistory = false;
    window.attempts = 0;
    window.WebSocket = class extends WebSocket {
        constructor(...args) {
            super(...args);
            newest = this;
            window.hasHistory = false;
            window.attempts++;
            const isEnd = /^{\"type\":\"(message_history|history_end)\"/;
            this.addEventListener('message', ({ data }) => {
                if (newest === this && isEnd.test(data)) window.hasHistory = true;
            });
            this.addEventListener('close', () => this.isOver());
        }
        close(...args) {
            this.isOver();
            super.close(...args);
        }
        isOver() {
            if (newest === this) window.hasHistory = false;
        }
    };
}";

/// Where the middle of something is, if nothing covers it. From then on, events of the mouse reach the
/// page only where they hit it, until `stopAiming()`, which says whether a whole click has.
const AIM: &str = "(() => {
    const find = () => document.querySelector(SELECTOR);
    const { left, top, width, height } = find().getBoundingClientRect();
    const middle = [left + width / 2, top + height / 2];
    if (!find().contains(document.elementFromPoint(...middle))) return null;
    let isHit = false;
    const kinds = ['mousedown', 'mouseup', 'click'];
    const notice = event => {
        if (!find()?.contains(event.target)) {
            event.preventDefault();
            event.stopImmediatePropagation();
        } else if (event.type === 'click') {
            isHit = true;
        }
    };
    kinds.forEach(kind => addEventListener(kind, notice, true));
    window.stopAiming = () => {
        kinds.forEach(kind => removeEventListener(kind, notice, true));
        return isHit;
    };
    return middle;
})()";

/// What the protocol calls the keys that are held down with another one.
const ALT: u8 = 1;
const SHIFT: u8 = 8;

/// A chat page that somebody has open.
pub struct Page {
    pub tab: Tab,
}

impl Browser {
    /// Opens a server's page and waits until it is connected.
    #[track_caller]
    pub fn open(self: &Arc<Browser>, server: &Server) -> Page {
        self.open_at(server.address())
    }

    #[track_caller]
    pub fn open_at(self: &Arc<Browser>, address: SocketAddr) -> Page {
        let mut page = self.open_link(address, "");
        page.is_complete();
        // With a mouse the box has the focus at once; a headless browser has none.
        page.clicks("#Text");
        page
    }

    /// The pages of Ann and of Bob, who have typed their names.
    #[track_caller]
    pub fn opens_for_ann_and_bob(self: &Arc<Browser>, server: &Server) -> (Page, Page) {
        let (mut ann, mut bob) = (self.open(server), self.open(server));
        ann.is_called("Ann");
        bob.is_called("Bob");
        (ann, bob)
    }

    /// Opens a link to the page, such as `#dev`, wherever it leads.
    #[track_caller]
    pub fn open_link(self: &Arc<Browser>, address: SocketAddr, hash: &str) -> Page {
        let mut page = Page { tab: self.tab() };
        page.tab.prepares(IS_PATIENT);
        page.tab.prepares(NOTES_HISTORY);
        page.tab.goes_to(&format!("http://{address}/{hash}"));
        page
    }
}

impl Page {
    // -----------------------------------------------------------------------------------------
    // Writing

    /// Types into whatever has the focus, which is the box for messages once a page is open.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        self.tab.call("Input.insertText", json!({ "text": text }));
    }

    #[track_caller]
    pub fn presses(&mut self, key: &str) {
        self.presses_with(0, key);
    }

    #[track_caller]
    pub fn presses_shift(&mut self, key: &str) {
        self.presses_with(SHIFT, key);
    }

    #[track_caller]
    pub fn presses_alt(&mut self, key: &str) {
        self.presses_with(ALT, key);
    }

    #[track_caller]
    pub fn presses_alt_shift(&mut self, key: &str) {
        self.presses_with(ALT | SHIFT, key);
    }

    #[track_caller]
    fn presses_with(&mut self, modifiers: u8, key: &str) {
        let (code, text) = match key {
            "Backspace" => (8, None),
            "Enter" => (13, Some("\r")),
            "Tab" => (9, None),
            "Escape" => (27, None),
            "End" => (35, None),
            "ArrowUp" => (38, None),
            "ArrowDown" => (40, None),
            _ => panic!("no key {key}"),
        };
        let mut params = json!({
            "type": if text.is_some() { "keyDown" } else { "rawKeyDown" },
            "modifiers": modifiers, "key": key, "code": key, "windowsVirtualKeyCode": code,
        });
        if let Some(text) = text {
            params["text"] = text.into();
        }
        self.tab.call("Input.dispatchKeyEvent", params.clone());
        params["type"] = "keyUp".into();
        self.tab.call("Input.dispatchKeyEvent", params);
    }

    /// Writes a message and sends it; whether it arrives is another matter.
    #[track_caller]
    pub fn writes(&mut self, text: &str) {
        self.types(text);
        self.presses("Enter");
        assert_eq!(self.draft(), "", "what is sent leaves the box");
    }

    /// Writes a message, sends it and sees it in the list.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        self.writes(text);
        self.shows(text);
    }

    #[track_caller]
    pub fn reloads(&mut self) {
        self.tab.reloads();
        self.is_complete();
        self.clicks("#Text");
    }

    /// Reloads where there may be no channel.
    #[track_caller]
    pub fn reloads_anywhere(&mut self) {
        self.tab.reloads();
    }

    /// Taps beside the drawer.
    #[track_caller]
    pub fn taps_outside(&mut self) {
        let is_beside = "document.elementFromPoint(315, 300) === document.getElementById('Scrim')";
        self.tab.until("there is room beside the drawer", is_beside);
        for kind in ["mousePressed", "mouseReleased"] {
            let params =
                json!({ "type": kind, "x": 315, "y": 300, "button": "left", "clickCount": 1 });
            self.tab.call("Input.dispatchMouseEvent", params);
        }
    }

    /// What is in the box for messages.
    #[track_caller]
    pub fn draft(&mut self) -> String {
        self.text("document.getElementById('Text').value")
    }

    /// Takes another name, and waits until the server knows it.
    #[track_caller]
    pub fn is_called(&mut self, name: &str) {
        self.tab.ask("document.getElementById('Name').select()");
        self.has_focus_on("#Name");
        self.types(name);
        self.tab.ask("document.getElementById('Text').focus()");
        assert_eq!(self.name(), name);
        let words = json!(format!("nobody else can be this {name}."));
        let known = format!("document.getElementById('WhoText').textContent.includes({words})");
        self.tab.until(&format!("the server knows {name}"), &known);
        self.is_connected();
    }

    #[track_caller]
    pub fn name(&mut self) -> String {
        self.text("document.getElementById('Name').value")
    }

    /// Clicks on the first thing that matches. The page may move under the mouse meanwhile: what the
    /// mouse hits then takes no notice, and it is pressed again.
    #[track_caller]
    pub fn clicks(&mut self, selector: &str) {
        let what = format!("{selector} is there and nothing covers it");
        let aim = AIM.replace("SELECTOR", &json!(selector).to_string());
        let deadline = Instant::now() + BROWSER_PATIENCE;
        loop {
            let at = self.tab.gives(&what, &aim);
            for kind in ["mousePressed", "mouseReleased"] {
                let params = json!({
                    "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1,
                });
                self.tab.call("Input.dispatchMouseEvent", params);
            }
            if self.tab.ask("stopAiming()") == true {
                return;
            }
            assert!(Instant::now() < deadline, "{selector} never stands still");
        }
    }

    /// Turns the mouse's wheel over the list, and waits until the list has followed.
    #[track_caller]
    pub fn wheels_up(&mut self, pixels: i32) {
        let list = "document.getElementById('Scroll')";
        let was = self.tab.ask(&format!(
            "window.isScrolled = false,
             {list}.addEventListener('scrollend', () => window.isScrolled = true, {{ once: true }}),
             Math.round({list}.scrollTop)"
        ));
        let params = json!({
            "type": "mouseWheel", "x": 600, "y": 200, "deltaX": 0, "deltaY": -pixels,
        });
        self.tab.call("Input.dispatchMouseEvent", params);
        let goal = was.as_i64().expect("a number") - i64::from(pixels);
        // A pixel more or less is rounding.
        let is_there = format!("window.isScrolled && Math.abs({list}.scrollTop - {goal}) < 2");
        self.tab.until("the list is scrolled and stands still", &is_there);
    }

    // -----------------------------------------------------------------------------------------
    // Reading

    /// Waits until a message with this text is in the list.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let what = format!("{:?} is in the list", cut(text));
        self.tab.until(&what, &format!("{TEXTS}.includes({})", json!(text)));
    }

    /// The texts of the messages in the list, oldest first.
    #[track_caller]
    pub fn texts(&mut self) -> Vec<String> {
        serde_json::from_value(self.tab.ask(TEXTS)).expect("texts")
    }

    /// Waits until the list is exactly this.
    #[track_caller]
    pub fn shows_only(&mut self, texts: &[&str]) {
        let what = format!("the list is {texts:?}");
        let same = format!("JSON.stringify({TEXTS}) === JSON.stringify({})", json!(texts));
        self.tab.until(&what, &same);
    }

    /// Waits until this name stands above a message with this text.
    #[track_caller]
    pub fn shows_from(&mut self, name: &str, text: &str) {
        let what = format!("{name} has said {text:?}");
        let rows = "[...document.querySelectorAll('#Log .message')]";
        let says = "e.querySelector('.name')?.textContent";
        let text = json!(text);
        self.tab.until(
            &what,
            &format!(
                "{rows}.some(e => {says} === {} && e.querySelector('.text')?.textContent === {text})",
                json!(name)
            ),
        );
    }

    /// Waits until the last message in the document is this.
    #[track_caller]
    pub fn shows_last(&mut self, text: &str) {
        let what = format!("{text:?} is the last message");
        self.tab.until(&what, &format!("{TEXTS}.at(-1) === {}", json!(text)));
    }

    /// How many messages the page says there are, which is more than it shows.
    #[track_caller]
    pub fn counts(&mut self, words: &str) {
        let count = "document.getElementById('Count').textContent";
        self.tab.until(&format!("it counts {words}"), &format!("{count} === {}", json!(words)));
    }

    /// Waits until the page says that it is connected, and has the history.
    #[track_caller]
    pub fn is_connected(&mut self) {
        self.tab.until("the history has come", "window.hasHistory");
        self.says_its_state("Connected");
    }

    /// Waits until all has come that a page asks for at its start: nothing is drawn anew by itself from
    /// here on.
    #[track_caller]
    pub fn is_complete(&mut self) {
        self.is_connected();
        self.is_known();
        self.tab.until("the channels are listed", "!!document.querySelector('#List a')");
    }

    /// Waits until the server has said who one is.
    #[track_caller]
    pub fn is_known(&mut self) {
        self.tab.until("the server knows who asks", "!document.getElementById('Who').hidden");
    }

    /// Waits until the page says this of its connection.
    #[track_caller]
    pub fn says_its_state(&mut self, words: &str) {
        let state = "document.getElementById('State').innerText";
        self.tab.until(&format!("it says {words}"), &format!("{state} === {}", json!(words)));
    }

    /// Waits until the next attempt to connect is some seconds away, and the page says so.
    #[track_caller]
    pub fn counts_seconds(&mut self) {
        let seconds = "/^[0-9]+ s$/.test(document.getElementById('Wait').textContent)";
        self.tab.until("it counts the seconds", seconds);
    }

    /// Waits until the messages that have not arrived are these, each with a word about why.
    #[track_caller]
    pub fn holds_back(&mut self, texts: &[&str], why: &str) {
        let entries = "[...document.querySelectorAll('#Pending .pending')]";
        let shown = format!(
            "{entries}.map(e => [e.querySelector('.text').textContent, \
             e.querySelector('.acts span').textContent])"
        );
        let wanted: Vec<_> = texts.iter().map(|text| [text, why]).collect();
        self.tab.until(
            &format!("{texts:?} wait: {why}"),
            &format!("JSON.stringify({shown}) === JSON.stringify({})", json!(wanted)),
        );
    }

    /// Waits until nothing is on its way any more.
    #[track_caller]
    pub fn holds_back_nothing(&mut self) {
        self.tab.until("all has arrived", "!document.querySelector('#Pending .pending')");
    }

    /// The numbers that the messages in the document begin with, which must follow each other.
    #[track_caller]
    pub fn numbers(&mut self) -> RangeInclusive<u64> {
        let number = |text: &String| -> u64 {
            let word = text.split(' ').next().unwrap_or_default();
            word.parse().unwrap_or_else(|_| panic!("no number: {text}"))
        };
        let numbers: Vec<u64> = self.texts().iter().map(number).collect();
        let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
        assert!(numbers.iter().copied().eq(first..=last), "not in order: {numbers:?}");
        first..=last
    }

    // -----------------------------------------------------------------------------------------
    // Channels

    /// Waits until a channel is shown, and connected.
    #[track_caller]
    pub fn is_in(&mut self, name: &str) {
        let shown = "document.getElementById('Where').textContent";
        self.tab.until(&format!("{name} is shown"), &format!("{shown} === {}", json!(name)));
        let current = "document.querySelector('#List [aria-current=page] .label')?.textContent";
        self.tab.until("the list says so", &format!("{current} === {}", json!(name)));
        self.is_connected();
        self.tab.comes_to("location.hash || '#messages'", format!("#{name}"));
    }

    /// Waits until the list of channels is this: their names, each with what is unread.
    #[track_caller]
    pub fn lists(&mut self, channels: &[&str]) {
        let shown = "[...document.querySelectorAll('#List a')].map(e => \
            [e.querySelector('.label'), e.querySelector('.badge')] \
                .map(e => e.textContent).join(' ').trim())";
        self.tab.until(
            &format!("the list is {channels:?}"),
            &format!("JSON.stringify({shown}) === JSON.stringify({})", json!(channels)),
        );
    }

    /// Clicks on a channel, and waits until it is shown.
    #[track_caller]
    pub fn chooses(&mut self, name: &str) {
        self.clicks(&format!("#List a[href='#{name}']"));
        self.is_in(name);
    }

    /// Asks for a new channel, which the server may refuse.
    #[track_caller]
    pub fn asks_for(&mut self, name: &str) {
        self.clicks("#New");
        self.has_focus_on("#NewName");
        self.types(name);
        self.presses("Enter");
    }

    /// Goes to another address in the same page.
    #[track_caller]
    pub fn follows(&mut self, hash: &str) {
        self.tab.ask(&format!("location.href = {}; 0", json!(hash)));
    }

    /// Waits until there is no channel to show, and the page says why.
    #[track_caller]
    pub fn has_no_channel(&mut self, words: &str) {
        let said =
            "(e => !e.hidden && e.innerText.includes(WORDS))(document.getElementById('Absent'))";
        let said = said.replace("WORDS", &json!(words).to_string());
        self.tab.until(&format!("it says {words:?}"), &said);
        let hidden =
            "document.getElementById('Form').hidden && document.getElementById('Scroll').hidden";
        self.tab.until("there is nothing to write or read", hidden);
    }

    /// Waits until the tab is called so, and has a dot in its icon if something is unread.
    #[track_caller]
    pub fn is_titled(&mut self, title: &str) {
        self.tab.until(
            &format!("the title is {title:?}"),
            &format!("document.title === {}", json!(title)),
        );
        let dot = "document.querySelector('link[rel=icon]').href.includes('circle')";
        self.tab.comes_to(dot, title.starts_with('('));
    }

    /// Waits until this has the focus.
    #[track_caller]
    pub fn has_focus_on(&mut self, selector: &str) {
        let has = format!("document.activeElement?.matches({})", json!(selector));
        self.tab.until(&format!("{selector} has the focus"), &has);
    }

    // -----------------------------------------------------------------------------------------
    // Looking

    /// The size of the window, in CSS pixels.
    #[track_caller]
    pub fn is_shown_on(&mut self, screen: Screen) {
        let (width, height, scale, is_phone) = match screen {
            Screen::Wide => (1280, 800, 1, false),
            Screen::Phone => (390, 844, 2, true),
            Screen::SmallPhone => (320, 568, 2, true),
            Screen::PhoneAboveKeyboard => (360, 360, 2, true),
        };
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone,
        });
        self.tab.call("Emulation.setDeviceMetricsOverride", metrics);
        let touch = json!({ "enabled": is_phone, "maxTouchPoints": if is_phone { 5 } else { 1 } });
        self.tab.call("Emulation.setTouchEmulationEnabled", touch);
        let has_size = format!("innerWidth === {width} && innerHeight === {height}");
        self.tab.until("it has its size", &has_size);
        self.stands_still();
    }

    /// `light` or `dark`.
    #[track_caller]
    pub fn is_seen_in(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tab.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        self.tab
            .until("it knows", &format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
        self.stands_still();
    }

    /// Waits until what slides or fades has done so.
    #[track_caller]
    pub fn stands_still(&mut self) {
        let moves = "document.getAnimations().some(a => a.playState === 'running' \
            && a.effect.getTiming().iterations !== Infinity)";
        self.tab.comes_to(moves, false);
    }

    #[track_caller]
    fn text(&mut self, expression: &str) -> String {
        match self.tab.ask(expression) {
            Value::String(text) => text,
            other => panic!("{expression} is {other}"),
        }
    }
}

/// What a page is shown on.
#[derive(Clone, Copy, Debug)]
pub enum Screen {
    Wide,
    Phone,
    SmallPhone,
    PhoneAboveKeyboard,
}
