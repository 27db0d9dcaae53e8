use super::*;

const ANN: &str = "ann";
const BOB: &str = "bob~k3v9q2m7x4ab";

/// Message 1 is plain; 2 was deleted by the operation 3; 4 has 20 different reactions.
fn index() -> Operations {
    let mut index = Operations::default();
    index.push_line(3);
    let delete = Operation { target: 2, action: Action::Delete };
    let _ = index.apply(&delete, 3, None);
    for key in 0..MOST_KEYS as u64 {
        let id = 5 + key;
        index.push_line(id);
        let react = Operation { target: 4, action: Action::React(key.to_string().into()) };
        let _ = index.apply(&react, id, Some(Person::of(ANN)));
    }
    index
}

fn actions() -> [Action; 6] {
    let key = || "new".into();
    [
        Action::Edit,
        Action::Delete,
        Action::React(key()),
        Action::Unreact(key()),
        Action::Pin,
        Action::Unpin,
    ]
}

#[test]
fn who_may_do_what_is_as_the_design_says() {
    use {Forbidden::*, Standing::*};
    /// What is decided about each of the six actions on message 1.
    #[track_caller]
    fn check(
        sender: Option<&str>,
        standing: Standing,
        author: Option<&str>,
        expected: [Result<(), Forbidden>; 6],
    ) {
        let asker = Asker { sender, standing };
        for (action, expected) in actions().into_iter().zip(expected) {
            let operation = Operation { target: 1, action };
            let decided = decide(&operation, asker, Target::Message(author), &index());
            let expected = expected.map_err(Refusal::Forbidden);
            assert_eq!(decided, expected, "{operation:?} by {asker:?} of {author:?}");
        }
    }
    let ok = Ok(());
    let (not_sender, not_admin, nobody) = (Err(NotTheSender), Err(NotAdmin), Err(Nobody));
    // Nobody may do anything, no matter who wrote the message.
    for standing in [Open, Member] {
        check(None, standing, None, [nobody; 6]);
        check(None, standing, Some(ANN), [nobody; 6]);
    }
    // The sender by a token, and by a key.
    check(Some(ANN), Member, Some(ANN), [ok, ok, ok, ok, not_admin, not_admin]);
    check(Some(ANN), Open, Some(ANN), [ok; 6]);
    check(Some(BOB), Open, Some(BOB), [ok; 6]);
    // Under another name it is the same pseudonym, and the name alone says nothing.
    check(Some("zoe~k3v9q2m7x4ab"), Open, Some(BOB), [ok; 6]);
    let other = [not_sender, not_sender, ok, ok, ok, ok];
    check(Some("bob~aaaaaaaaaaaa"), Open, Some(BOB), other);
    check(Some("bob"), Open, Some(BOB), other);
    check(Some("k3v9q2m7x4ab"), Open, Some(BOB), other);
    check(Some("ann~k3v9q2m7x4ab"), Open, Some(ANN), other);
    check(Some("Ann"), Open, Some(ANN), other);
    check(Some(ANN), Open, None, other);
    check(Some(ANN), Member, Some(BOB), [not_sender, not_sender, ok, ok, not_admin, not_admin]);
    // An admin may do all, but without a sender it has no reaction.
    check(Some("root"), Admin, Some(ANN), [ok; 6]);
    check(Some("root"), Admin, None, [ok; 6]);
    check(None, Admin, Some(ANN), [ok, ok, nobody, nobody, ok, ok]);
}

#[test]
fn an_operation_names_a_message_that_is_there() {
    #[track_caller]
    fn check(id: u64, target: Target<'_>, expected: Result<(), Refusal>) {
        for action in actions() {
            let asker = Asker { sender: Some(ANN), standing: Standing::Admin };
            let operation = Operation { target: id, action };
            assert_eq!(decide(&operation, asker, target, &index()), expected, "{operation:?}");
        }
    }
    let none = Err(Refusal::NoSuchMessage);
    check(1, Target::Message(Some(ANN)), Ok(()));
    check(1, Target::Missing, none);
    check(2, Target::Message(Some(ANN)), Err(Refusal::Deleted));
    check(2, Target::Missing, Err(Refusal::Deleted));
    check(3, Target::Message(Some(ANN)), none);
    check(24, Target::Message(None), none);
}

#[test]
fn a_message_has_at_most_twenty_different_reactions() {
    #[track_caller]
    fn check(index: &Operations, action: Action, expected: Result<(), Refusal>) {
        let operation = Operation { target: 4, action };
        let asker = Asker { sender: Some(BOB), standing: Standing::Open };
        assert_eq!(decide(&operation, asker, Target::Message(None), index), expected);
    }
    let mut index = index();
    let react = |key: &str| Action::React(key.into());
    check(&index, react("new"), Err(Refusal::TooMany));
    check(&index, Action::Unreact("new".into()), Ok(()));
    check(&index, react("0"), Ok(()));
    // A reaction of another person keeps the key when the first one takes it back.
    let operation = |action| Operation { target: 4, action };
    let _ = index.apply(&operation(react("0")), 30, Some(Person::of(BOB)));
    let _ = index.apply(&operation(Action::Unreact("0".into())), 31, Some(Person::of(ANN)));
    check(&index, react("new"), Err(Refusal::TooMany));
    let _ = index.apply(&operation(Action::Unreact("0".into())), 32, Some(Person::of(BOB)));
    check(&index, react("new"), Ok(()));
    check(&index, react("0"), Ok(()));
}
