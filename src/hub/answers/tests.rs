use super::{super::tests::House, *};

impl House {
    /// The hub's answer to a request for the pinned messages after an id.
    fn pinned_after(&self, after: u64) -> States {
        let (reply, answer) = oneshot::channel();
        self.hub.states(StatesOf::PinnedAfter(after), reply);
        answer.try_recv().expect("an answer")
    }

    /// The hub's answer to a request for more reactions to message 1.
    fn reactions_after(&self, after: Option<Reaction>) -> Option<Vec<(Reaction, u64)>> {
        let (reply, answer) = oneshot::channel();
        self.hub.next_reactions(1, after, reply);
        answer.try_recv().expect("an answer")
    }

    /// A hub whose file has these operations; each has a sender of its own.
    fn with_operations(text: &str) -> House {
        let mut house = House::new(text);
        let _ = house.hub.history.replay_operations(|id| Some(format!("sender-{id}")), &[]);
        house
    }
}

/// How many reactions are named along with a message.
#[track_caller]
fn few(state: &MessageState) -> usize {
    match &state.reactions {
        Reactions::Few(lines) => lines.len(),
        Reactions::Many => panic!("there are many"),
    }
}

fn ids(states: &States) -> Vec<u64> {
    states.messages.iter().map(|state| state.message.stretch.first_id).collect()
}

fn pin(id: u64) -> String {
    format!("{{\"$op\":\"pin\",\"id\":{id}}}\n")
}

#[test]
fn pinned_messages_are_named_a_few_at_a_time_however_many_there_are() {
    const TIMES: usize = 10;
    let count = (TIMES * PINNED_LINES) as u64;
    // A file may pin what reads as erased.
    let is_message = |id: &u64| !id.is_multiple_of(3);
    let mut text = String::new();
    (1..=count).for_each(|id| text += if is_message(&id) { "1\n" } else { "null \n" });
    (1..=count).rev().for_each(|id| text += &pin(id));
    let house = House::with_operations(&text);
    let (mut named, mut after) = (Vec::new(), Some(0));
    for time in 1..=TIMES {
        let states = house.pinned_after(after.expect("there is more"));
        assert!(states.messages.len() <= PINNED_LINES, "{} at once", states.messages.len());
        assert!(states.messages.iter().all(|state| state.is_pinned));
        named.extend(ids(&states));
        after = states.more_after;
        assert_eq!(after, (time < TIMES).then_some((time * PINNED_LINES) as u64));
    }
    assert_eq!(named, (1..=count).filter(is_message).collect::<Vec<_>>());
    let none = house.pinned_after(count);
    assert_eq!((none.messages.len(), none.more_after), (0, None));
}

#[test]
fn edits_and_reactions_count_and_a_message_that_has_too_many_is_the_last_of_a_few() {
    let mut text = "1\n".repeat(3 * PINNED_LINES);
    let last_id = 3 * PINNED_LINES as u64;
    for id in 1..=last_id {
        text += &format!("{{\"$op\":\"edit\",\"id\":{id},\"data\":2}}\n{}", pin(id));
    }
    let react = "{\"$op\":\"react\",\"id\":2,\"key\":\"+1\"}\n";
    text += &react.repeat(FEW_REACTIONS);
    let house = House::with_operations(&text);
    let states = house.pinned_after(0);
    assert_eq!((ids(&states), states.more_after), (vec![1, 2], Some(2)));
    assert_eq!(few(&states.messages[1]), FEW_REACTIONS);
    let states = house.pinned_after(2);
    let half = PINNED_LINES as u64 / 2;
    assert_eq!((ids(&states), states.more_after), ((3..3 + half).collect(), Some(2 + half)));
    let states = house.pinned_after(last_id - half);
    assert_eq!((states.messages.len() as u64, states.more_after), (half, None));
}

#[test]
fn many_reactions_are_told_a_part_at_a_time_however_many_there_are() {
    const TIMES: usize = 5;
    let count = (TIMES * REACTIONS_AT_ONCE) as u64;
    let react = |id: u64| format!("{{\"$op\":\"react\",\"id\":1,\"key\":\"{}\"}}\n", id % 7);
    let text = (2..=count + 1).fold("1\n".to_owned(), |text, id| text + &react(id));
    let mut house = House::with_operations(&text);
    let state = house.hub.state(1).expect("it is there");
    assert!(matches!(state.reactions, Reactions::Many));
    assert_eq!(few(&house.hub.state(2).expect("it is there")), 0);
    let mut told: Vec<(Reaction, u64)> = Vec::new();
    for _ in 0..TIMES {
        let next = house.reactions_after(told.last().map(|(reaction, _)| *reaction));
        let next = next.expect("it is there");
        assert_eq!(next.len(), REACTIONS_AT_ONCE);
        told.extend(next);
    }
    let last = told.last().map(|(reaction, _)| *reaction);
    assert_eq!(house.reactions_after(last), Some(Vec::new()));
    let keys: Vec<u64> = told
        .chunk_by(|(one, _), (next, _)| next.has_key_of(one))
        .map(|some| {
            let key = some[0].1 % 7;
            assert!(some.iter().all(|(_, line)| line % 7 == key), "one key");
            key
        })
        .collect();
    assert_eq!(keys.len(), 7, "each key once: {keys:?}");
    let mut lines: Vec<u64> = told.into_iter().map(|(_, line)| line).collect();
    lines.sort_unstable();
    assert!(lines.into_iter().eq(2..=count + 1), "each once");
    house.dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    house.tick();
    assert_eq!(house.reactions_after(None), None);
}
