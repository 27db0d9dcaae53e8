use serde_json::{Value, json};

use super::*;
use crate::testing::frames_in;

fn told(events: &Events, client: u64, listening: &mut Listening) -> Vec<Value> {
    let (frames, rest) = frames_in(&events.take_for(ClientId(client), listening));
    assert_eq!(rest, 0, "whole frames");
    frames.iter().map(|frame| serde_json::from_slice(&frame.payload).expect("it is JSON")).collect()
}

fn senders(names: &[Option<&str>]) -> impl ExactSizeIterator<Item = Option<Arc<str>>> {
    let all: Vec<_> = names.iter().map(|name| name.map(Arc::from)).collect();
    all.into_iter()
}

#[test]
fn presence_is_told_once_a_second_and_counts_connections_and_names() {
    let mut events = Events::default();
    let now = Instant::now();
    events.change();
    assert!(!events.is_presence_due(now), "nobody asks");
    let mut ann = events.listen();
    assert!(events.is_presence_due(now));
    events.tell_presence(senders(&[Some("ann"), None, Some("bob"), Some("ann")]), now);
    let expected = json!({"type": "presence", "count": 4, "names": ["ann", "bob"]});
    assert_eq!(told(&events, 1, &mut ann), [expected]);
    assert!(told(&events, 1, &mut ann).is_empty());
    events.change();
    assert!(!events.is_presence_due(now + PRESENCE_EVERY - Duration::from_millis(1)));
    assert!(events.is_presence_due(now + PRESENCE_EVERY));
    events.tell_presence(senders(&[]), now + PRESENCE_EVERY);
    assert!(!events.is_presence_due(now + 2 * PRESENCE_EVERY), "nothing has changed");
    // Clients with the same key are one person, under the name that came first.
    let names = [Some("ann~k3v9q2m7x4ab"), Some("k3v9q2m7x4ab"), Some("annie~k3v9q2m7x4ab")];
    events.tell_presence(senders(&names), now);
    let expected =
        json!({"type": "presence", "count": 3, "names": ["ann~k3v9q2m7x4ab", "k3v9q2m7x4ab"]});
    assert_eq!(told(&events, 1, &mut ann), [expected]);
    // A hundred names at the most.
    let many: Vec<String> = (0..500).map(|number| format!("name \"{number}\"")).collect();
    let many: Vec<_> = many.iter().map(|name| Some(&**name)).collect();
    events.tell_presence(senders(&many), now);
    let told = &told(&events, 1, &mut ann)[0];
    assert_eq!((&told["count"], &told["names"][99]), (&json!(500), &json!("name \"99\"")));
    assert_eq!(told["names"].as_array().map(Vec::len), Some(NAMES));
}

#[test]
fn typing_is_told_once_to_the_others() {
    let mut events = Events::default();
    let (mut ann, mut bob) = (events.listen(), events.listen());
    let typing = |from| json!({"type": "typing", "from": from});
    events.tell_typing(ClientId(1), "ann", Round::Over);
    assert_eq!(told(&events, 2, &mut bob), [typing("ann")]);
    assert!(told(&events, 1, &mut ann).is_empty(), "one knows that one types");
    events.tell_typing(ClientId(2), "bob", Round::GoesOn);
    assert_eq!(told(&events, 1, &mut ann), [typing("bob")]);
    let mut late = events.listen();
    assert!(told(&events, 3, &mut late).is_empty());
    events.tell_typing(ClientId(1), "ann", Round::Over);
    assert_eq!(events.typing.len(), 1, "what all have been told is forgotten");
    events.skip(&mut bob);
    assert!(told(&events, 2, &mut bob).is_empty(), "a client that was behind misses it");
    (0..1000).for_each(|_| events.tell_typing(ClientId(1), "ann", Round::GoesOn));
    assert_eq!(events.typing.len(), TYPING_KEPT);
    assert_eq!(told(&events, 2, &mut bob).len(), TYPING_KEPT);
    (0..3).for_each(|_| events.end_listening());
    assert!(events.typing.is_empty() && !events.has_listeners());
}
