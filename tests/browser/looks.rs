//! What the page looks like: light and dark, wide and on a phone.

use std::{fs, path::Path};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    devtools::Browser,
    page::{Page, Screen},
    support::*,
};

/// The contrast that WCAG 2 wants of text at level AA.
const LEGIBLE: f64 = 4.5;

/// An evening in a chat, as people and programs write it.
const CONVERSATION: [(&str, &str); 14] = [
    ("Maya", "Morning! Did the new disk arrive?"),
    ("Maya", "I would love to move the archive today."),
    ("Jonas", "It did. Photos and tracking: https://example.org/parcel/42?x=1 (worth a look)."),
    ("Jonas", "Let us do it after lunch:\n  1. stop the jobs\n  2. rsync\n  3. start again"),
    ("سلمى", "مرحبا بالجميع، هل من جديد؟"),
    ("Linus 🦔", "👋🎉"),
    ("", r#"{"sensor": "attic", "degrees": 21.50, "ok": true, "tags": ["roof", "dry"]}"#),
    ("Зоя", "Выглядит хорошо. Когда начинаем?"),
    ("Maya", "Tonight, if nobody minds."),
    ("Priya Ramanathan-Castellanos of the Night Shift", "Fine with me, I am on call anyway."),
    ("Jonas", "Great 👍"),
    (
        "",
        r#"{"event": "deploy", "version": 1.10, "steps": [{"name": "build", "seconds": 41.0}, {"name": "test", "seconds": 12.25}], "notes": null}"#,
    ),
    ("Linus 🦔", "The dashboard stays green so far: no errors, and p99 is where it was last week."),
    ("Maya", "Then good night, and thanks everybody."),
];

#[track_caller]
fn converse(server: &Server) {
    let mut people = server.join();
    for (user, content) in CONVERSATION {
        match user {
            "" => people.says(content),
            _ => people.says(&json!({ "user": user, "content": content }).to_string()),
        };
    }
}

#[track_caller]
fn people_go_on(server: &Server) {
    let last = json!({ "user": "Maya", "content": "Then good night, and thanks everybody." });
    server.join().says(&last.to_string());
}

/// The contrast of each kind of text with what is behind it.
const CONTRASTS: &str = "(() => {
    const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    // Any colour that CSS knows, over another.
    const rgbOf = (...colours) => {
        for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const lightOf = rgb => rgb.map(c => c / 255)
        .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
    const behind = e => {
        const colours = [];
        for (; e; e = e.parentElement) colours.unshift(getComputedStyle(e).backgroundColor);
        return colours;
    };
    const kinds = ['#Log .name', '#Log .text', '#Log .text a', '#Log pre', '#Log time', '#Log .face',
        'h1', '#Where', '.brand', '#Channels h2', '#List .label', '#List .hash', '.badge', '#New', '#Count', '#State', '#Name', '.as', '#Text'];
    return kinds.flatMap(kind => [...document.querySelectorAll(kind)].map(e => {
        const under = behind(e);
        const [a, b] = [lightOf(rgbOf(...under)), lightOf(rgbOf(...under, getComputedStyle(e).color))];
        return [kind + ' ' + e.textContent.slice(0, 20), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
    }));
})()";

#[test]
fn text_is_legible_in_light_and_in_dark() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    converse(&server);
    let mut page = browser.open(&server);
    page.shows_last("Then good night, and thanks everybody.");
    for scheme in ["light", "dark"] {
        page.is_seen_in(scheme);
        let light = "(([r, g, b]) => Number(r) + Number(g) + Number(b) > 382)\
            (getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g))";
        page.tab.comes_to(light, scheme == "light");
        let contrasts: Vec<(String, f64)> =
            serde_json::from_value(page.tab.ask(CONTRASTS)).expect("names and numbers");
        assert!(contrasts.len() > 30, "{contrasts:?}");
        let faint: Vec<_> = contrasts.iter().filter(|(_, contrast)| *contrast < LEGIBLE).collect();
        assert!(faint.is_empty(), "in {scheme}: {faint:?}");
    }
}

#[test]
fn a_phone_shows_everything_without_scrolling_sideways() {
    let Some(browser) = Browser::shared() else { return };
    let server = Server::start();
    converse(&server);
    let mut others = server.join();
    let wide = "x".repeat(600);
    others.says(&json!({ "user": wide, "content": wide }).to_string());
    others.says(&json!({ (wide.as_str()): wide }).to_string());
    let mut page = browser.open(&server);
    for screen in [Screen::SmallPhone, Screen::Phone] {
        page.is_shown_on(screen);
        page.fits();
    }
    // With a keyboard up, and with all that the page can say about who one is.
    page.is_shown_on(Screen::PhoneAboveKeyboard);
    page.tab.until(
        "the channel's name is not cut off",
        "(e => e.scrollWidth <= e.clientWidth)(document.querySelector('h1'))",
    );
    page.clicks("#Who");
    page.clicks("#Secret");
    page.types("tc_wrong");
    page.presses("Enter");
    page.tab.until("it is refused", "document.getElementById('SecretWhy').checkVisibility()");
    page.fits();
    page.clicks("#Who");
    page.clicks("#Text");
    let server = server.kill();
    page.says_its_state("Disconnected");
    page.writes("not yet");
    page.holds_back(&["not yet"], "Waiting for the connection");
    for screen in [Screen::SmallPhone, Screen::Phone] {
        page.is_shown_on(screen);
        // The state is longest then.
        page.counts_seconds();
        page.fits();
    }
    drop(server);
}

impl Page {
    /// Nothing is wider than the screen, and what one needs is on it and large enough for a thumb.
    #[track_caller]
    fn fits(&mut self) {
        let wide = "[document.documentElement, document.body, document.getElementById('Scroll')]
            .filter(e => e.scrollWidth > Math.min(e.clientWidth, innerWidth)).map(e => e.tagName)";
        self.tab.comes_to(wide, json!([]));
        let cut_off = "[...document.querySelectorAll('#Log .text, #Log pre')]
            .filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 40))";
        self.tab.comes_to(cut_off, json!([]));
        let outside = "['#Open', '#State', '#Name', '#Text', '#Send'].filter(what => {
            const { left, right, top, bottom, width } = document.querySelector(what).getBoundingClientRect();
            return !(width > 0 && left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight);
        })";
        self.tab.comes_to(outside, json!([]));
        let small = "['#Name', '#Text', '#Send']
            .filter(what => document.querySelector(what).getBoundingClientRect().height < 44)";
        self.tab.comes_to(small, json!([]));
    }

    #[track_caller]
    fn is_pictured(&mut self, file: &Path) {
        self.stands_still();
        let picture = self.tab.call("Page.captureScreenshot", json!({ "format": "png" }));
        let Value::String(picture) = &picture["data"] else { panic!("no picture") };
        let picture = BASE64.decode(picture.as_bytes()).expect("a picture in base64");
        fs::write(file, picture).expect("a picture can be written");
    }
}

#[test]
#[ignore = "makes pictures for people to look at: wide and phone, light and dark"]
fn pictures() {
    let Some(browser) = Browser::shared() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    fs::create_dir_all(&folder).expect("a folder for pictures");
    let looks = [Screen::Wide, Screen::Phone].map(|screen| ["light", "dark"].map(|s| (screen, s)));
    let picture = |page: &mut Page, what: &str| {
        for (screen, scheme) in looks.into_iter().flatten() {
            page.is_shown_on(screen);
            page.is_seen_in(scheme);
            let name = format!("{what}-{screen:?}-{scheme}.png").to_lowercase();
            page.is_pictured(&folder.join(name));
        }
    };

    let server = Server::start();
    for name in ["backups", "dev", "night-shift", "ops"] {
        assert_eq!(server.asks(&format!("PUT /{name}"), &[]).status, 201);
    }
    let long = "a-name-as-long-as-names-of-channels-get-which-is-63-letters-long";
    assert_eq!(server.asks(&format!("PUT /{}", &long[..63]), &[]).status, 201);
    let mut page = browser.open(&server);
    page.is_called("Maya");
    picture(&mut page, "empty");
    page.clicks("#Who");
    picture(&mut page, "identity");
    page.clicks("#Who");
    page.clicks("#Text");
    converse(&server);
    page.says("Signed with my key.");
    let mut jonas = server.join_at("/ws?as=Jonas&key=correct+horse");
    jonas.say("And this is really Jonas.");
    page.shows("And this is really Jonas.");
    people_go_on(&server);
    page.shows_last("Then good night, and thanks everybody.");
    picture(&mut page, "conversation");
    for operation in [
        r#"{"$op":"react","id":1,"key":"👍"}"#,
        r#"{"$op":"react","id":13,"key":"🎉"}"#,
        r#"{"$op":"react","id":13,"key":"well done"}"#,
        r#"{"$op":"pin","id":13}"#,
        r#"{"$op":"edit","id":16,"data":{"user":"Jonas","content":"And this is really Jonas, as always."}}"#,
        r#"{"$op":"typing"}"#,
    ] {
        jonas.send(tungstenite::Message::text(operation));
    }
    page.shows("And this is really Jonas, as always.");
    page.clicks("#Log .row:nth-last-child(3) .text");
    page.tab.until("the buttons come", "document.querySelector('.tools') !== null");
    picture(&mut page, "operations");
    for (button, what) in
        [("#Pins", "pinned"), (".tools .react", "picker"), (".tools .delete", "delete")]
    {
        page.clicks("#Log .row:nth-last-child(3) .text");
        page.clicks(button);
        picture(&mut page, what);
        page.presses("Escape");
    }
    page.is_shown_on(Screen::Wide);
    page.tab.ask("document.getElementById('Text').focus()");
    page.presses("ArrowUp");
    picture(&mut page, "editing");
    page.presses("Escape");
    let mut bob = server.join_at("/dev/ws");
    let mut bot = server.join_at("/backups/ws");
    for number in 1..=3 {
        bob.says(&json!({ "user": "Bob", "content": format!("Look at {number}") }).to_string());
    }
    for _ in 0..120 {
        bot.says(r#"{"user":"cron","content":"done"}"#);
    }
    page.is_titled("(99+) #messages – txtcord");
    picture(&mut page, "unread");
    page.is_shown_on(Screen::Wide);
    page.chooses("dev");
    page.shows_last("Look at 3");
    picture(&mut page, "switched");
    page.is_shown_on(Screen::Phone);
    page.clicks("#Open");
    for scheme in ["light", "dark"] {
        page.is_seen_in(scheme);
        page.is_pictured(&folder.join(format!("drawer-phone-{scheme}.png")));
    }
    page.clicks("#New");
    page.types("metrics");
    page.presses("Enter");
    page.tab.until("it is refused", "document.getElementById('Why').textContent !== ''");
    page.is_pictured(&folder.join("refused-phone-dark.png"));
    page.presses("Escape");
    page.presses("Escape");
    page.is_shown_on(Screen::Wide);
    page.asks_for("me");
    page.tab.until("it is refused", "document.getElementById('Why').textContent !== ''");
    page.is_pictured(&folder.join("refused-wide-dark.png"));
    page.presses("Escape");
    page.follows("#plans");
    page.has_no_channel("There is no channel #plans");
    picture(&mut page, "unknown");
    page.follows("#messages");
    page.is_in("messages");
    page.tab.ask("document.getElementById('Scroll').scrollTop = 0");
    picture(&mut page, "beginning");
    page.is_shown_on(Screen::Wide);
    page.clicks("#Text");
    page.presses("End");
    let setup = server.kill();
    page.says_its_state("Disconnected");
    page.writes("One more thing: the old disk can go.");
    page.types("And I shall");
    page.holds_back(&["One more thing: the old disk can go."], "Waiting for the connection");
    picture(&mut page, "disconnected");
    drop(setup);
    println!("pictures are in {}", folder.display());
}
