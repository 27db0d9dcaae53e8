use std::{fs::OpenOptions, iter, os::unix::fs::FileExt, sync::Arc, time::Duration};

use proptest::prelude::*;

use crate::{
    command::{Command, Post, Speaker, Stored},
    history::{BLOCK, History},
    hub::tests::{House, messages_of, texts},
    testing::{Mishap, tries},
    wire::ErrorAnswer,
};

/// A post of whole lines, and the queue to which its answer comes.
fn post(lines: &str) -> (Command, oneshot::Receiver<Result<Stored, ErrorAnswer>>) {
    post_of(None, lines)
}

/// The same from a verified sender.
fn post_of(
    sender: Option<&str>,
    lines: &str,
) -> (Command, oneshot::Receiver<Result<Stored, ErrorAnswer>>) {
    let (reply, answer) = oneshot::channel();
    let by = Speaker::Request { key: None, reply };
    let sender = sender.map(Arc::from);
    (Command::Post(Post::new(by, sender, lines.into(), None)), answer)
}

/// Another program appends `before` between the hub's look at the file and its write, and `after`
/// right after the write.
fn slips_in(before: &str, after: &str) -> Mishap {
    Mishap { before: before.into(), after: after.into(), ..Mishap::default() }
}

#[test]
fn a_speakers_messages_keep_their_order_and_ids_while_other_programs_append() {
    #[track_caller]
    fn check(left: &str, before: &str, after: &str, file: &str, first_id: u64) {
        let mut house = House::new("");
        let mut ann = house.live();
        house.dir.append(left);
        house.system.plan(slips_in(before, after));
        let (post, answer) = post("1\n2\n");
        house.hub.step(iter::once(post)).expect("the file is fine");
        let stored = Ok(Stored { first_id, last_id: first_id + 1 });
        assert_eq!(answer.try_recv(), Ok(stored), "{left:?}, {before:?}, {after:?}");
        house.dir.append("\n");
        house.tick();
        assert_eq!(String::from_utf8(house.dir.read()).unwrap(), file.to_owned() + "\n");
        let stands = messages_of(&house.reload());
        assert_eq!(ann.hears(), stands);
        let is_ours = |(_, text): &(u64, String)| text == "1" || text == "2";
        let said: Vec<_> = stands.into_iter().filter(is_ours).collect();
        assert_eq!(said, texts(&[(first_id, "1"), (first_id + 1, "2")]));
    }
    // The other program appends whole lines.
    check("", "", "", "1\n2\n", 1);
    check("[]\n", "{}\n", "\"\"\n", "[]\n{}\n1\n2\n\"\"\n", 3);
    check("", "\n", "", "\n1\n2\n", 2);
    // It has begun a line before the hub looked: the line gets its end once.
    check("12", "", "", "12\n1\n2\n", 2);
    check("12", "3", "", "123\n1\n2\n", 2);
    check("12", "3\n", "", "123\n\n1\n2\n", 3);
    check("12", "3\n4", "", "123\n4\n1\n2\n", 3);
    check(" ", "", "", " \n1\n2\n", 2);
    check("\u{feff}", "", "", "\u{feff}\n1\n2\n", 2);
    check("\u{feff}", "\u{feff}", "", "\u{feff}\u{feff}\n1\n2\n", 2);
    // It began a line after the hub looked: our lines are taken back and written again after it.
    check("", "12", "", "12    \n1\n2\n", 2);
    check("", "{\"half\":", "1}\n", "{\"half\":    1}\n\n1\n2\n", 3);
    check("", "{\"half\":", "1}\n7", "{\"half\":    1}\n7\n1\n2\n", 3);
    check("", "{\"half\":", "1}", "{\"half\":    1}\n1\n2\n", 2);
    check("", " ", "", "     \n1\n2\n", 2);
    check("", "\u{feff}", "", "\u{feff}    \n1\n2\n", 2);
    check("[]\n", "{}\n\"", "", "[]\n{}\n\"    \n1\n2\n", 4);
}

#[test]
fn a_long_line_that_another_program_has_begun_is_searched_once_for_its_end() {
    let mut house = House::new("");
    let file = OpenOptions::new().write(true).open(house.dir.file()).expect("the file");
    let overwrite = |bytes, at| file.write_all_at(bytes, at).expect("the file can be written");
    let lines_after_a_look = |house: &mut House| {
        house.tick();
        house.hub.history.last_id()
    };
    let begun = "x".repeat(2 * BLOCK);
    house.dir.append(&begun);
    assert_eq!(lines_after_a_look(&mut house), 0);
    // The beginning is not read again, as long as nothing ends after it.
    overwrite(b"\n", 3);
    house.dir.append("yz");
    assert_eq!(lines_after_a_look(&mut house), 0);
    overwrite(b"x", 3);
    house.dir.append("\n");
    assert_eq!(lines_after_a_look(&mut house), 1);
    // What was written last is read again.
    house.dir.append(&begun);
    assert_eq!(lines_after_a_look(&mut house), 1);
    overwrite(b"\n", house.dir.read().len() as u64 - 1);
    assert_eq!(lines_after_a_look(&mut house), 2);
    // So is a line that was cut and begun anew.
    house.dir.append(&begun);
    assert_eq!(lines_after_a_look(&mut house), 2);
    file.set_len(house.hub.history.end()).expect("the file can be cut");
    assert_eq!(lines_after_a_look(&mut house), 2);
    house.dir.append(format!("3\n{begun}"));
    assert_eq!(lines_after_a_look(&mut house), 3);
}

#[test]
fn a_post_has_its_own_ids_and_stamps_even_if_another_program_overwrote_what_it_had_begun() {
    let mut house = House::new("");
    let mut ann = house.live();
    house.dir.append("x".repeat(2 * BLOCK));
    house.tick();
    let file = OpenOptions::new().write(true).open(house.dir.file()).expect("the file");
    file.write_all_at(b"1\n2\n", 0).expect("the file can be written");
    let (post, answer) = post_of(Some("ann"), "3\n");
    house.hub.step(iter::once(post)).expect("the file is fine");
    assert_eq!(answer.try_recv(), Ok(Ok(Stored { first_id: 4, last_id: 4 })));
    house.tick();
    assert_eq!(ann.hears(), texts(&[(1, "1"), (2, "2"), (4, "3")]));
    let senders: Vec<_> = house.stamps().into_values().map(|(_, from)| from).collect();
    assert_eq!(senders, [None, None, Some("ann".into())]);
}

#[test]
fn a_post_that_is_glued_to_a_foreign_line_and_finds_no_room_leaves_nothing() {
    let mut house = House::new("");
    let mut ann = house.live();
    house.system.plan(slips_in("{\"half\":", ""));
    house.system.plan(Mishap { takes: Some(4), ..Mishap::default() });
    let (post, answer) = post("1\n2\n");
    house.hub.step(iter::once(post)).expect("the file is fine");
    assert_eq!(answer.try_recv(), Ok(Err(ErrorAnswer::StorageFull)));
    house.dir.append("3}\n");
    house.tick();
    assert_eq!(house.dir.read(), b"{\"half\":    3}\n");
    assert_eq!(ann.hears(), texts(&[(1, "{\"half\":    3}")]));
}

#[test]
fn a_post_whose_stamps_find_no_room_leaves_nothing_and_harms_no_foreign_line() {
    #[track_caller]
    fn check(left: &str, before: &str, after: &str, file: &str) {
        for room in [0, 10, 40] {
            let mut house = House::new("");
            let mut ann = house.live();
            house.dir.append(left);
            house.system.plan(slips_in(before, after));
            house.system.limit_stamps(Some(room));
            let (post, answer) = post_of(Some("ann"), "1\n2\n");
            house.hub.step(iter::once(post)).expect("the file is fine");
            assert_eq!(
                answer.try_recv(),
                Ok(Err(ErrorAnswer::StorageFull)),
                "{left:?}, {before:?}"
            );
            house.system.limit_stamps(None);
            house.tick();
            assert_eq!(String::from_utf8(house.dir.read()).unwrap(), file, "{room} bytes of room");
            let stands = messages_of(&house.reload());
            assert_eq!(ann.hears(), stands);
            assert!(house.stamps().values().all(|(_, from)| from.is_none()));
            assert_eq!(house.hub.journal.stamped_lines(), Some(house.hub.history.last_id()));
        }
    }
    check("", "", "", "");
    check("[]\n", "", "", "[]\n");
    check("", "[]\n", "{}\n", "[]\n    {}\n");
    // Another program has begun a line: it gets its end, and what follows is a line of its own.
    check("12", "", "", "12\n");
    check("12", "", "{}\n", "12\n    {}\n");
    check("12", "3\n", "", "123\n\n");
    // Our lines were glued to one, and written again.
    check("", "12", "", "12    \n");
}

/// Bytes that another program may write: whole lines and parts of lines.
fn foreign() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{\"cron\":1}\n",
        "{\"cr",
        "on\":2}\n",
        "junk\n",
        "\n",
        "\r\n",
        "12",
        "3\n",
        "[1]",
        "\"",
        " ",
        "\t\r",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// What happens to a write: another program appends before and after it, and now and then the disk
/// is full after some bytes.
fn mishap() -> impl Strategy<Value = Mishap> {
    let takes = prop_oneof![5 => Just(None), 1 => (0..40usize).prop_map(Some)];
    (foreign(), foreign(), takes)
        .prop_map(|(before, after, takes)| Mishap { takes, ..slips_in(&before, &after) })
}

/// What happens in one step of the hub.
#[derive(Clone, Debug)]
struct Step {
    /// Another program appends this first.
    foreign: String,
    /// How many messages each post has, and which of three speakers says them.
    posts: Vec<(usize, usize)>,
    mishaps: Vec<Mishap>,
    /// There is room for this many bytes of stamps; without a number, for all.
    stamp_room: Option<usize>,
}

/// The verified senders of the three speakers.
const SENDERS: [Option<&str>; 3] = [None, Some("ann"), Some("bob~k3v9q2m7x4ab")];

fn step() -> impl Strategy<Value = Step> {
    let posts = prop::collection::vec((1..4usize, 0..3usize), 0..4);
    let room = prop::option::weighted(0.2, 0..300usize);
    (foreign(), posts, prop::collection::vec(mishap(), 2), room).prop_map(
        |(foreign, posts, mishaps, stamp_room)| Step { foreign, posts, mishaps, stamp_room },
    )
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn the_order_in_the_file_is_the_order_for_all_while_other_programs_append(
        start in foreign(),
        steps in prop::collection::vec(step(), 1..7),
    ) {
        let mut house = House::new(&start);
        let mut ann = house.live();
        let before = messages_of(&house.reload()).len();
        let mut said = 0;
        let mut stored = Vec::new();
        let mut refused = Vec::new();
        for Step { foreign, posts, mishaps, stamp_room } in steps {
            house.system.limit_stamps(stamp_room);
            house.system.append(foreign);
            mishaps.into_iter().for_each(|mishap| house.system.plan(mishap));
            // Longer than the server waits before it tries a full disk again.
            house.system.wait(Duration::from_secs(1));
            let mut answers = Vec::new();
            let posts: Vec<_> = posts.into_iter().map(|(count, speaker)| {
                let texts: Vec<_> =
                    (said..said + count).map(|n| format!(r#"{{"by":{speaker},"n":{n}}}"#)).collect();
                said += count;
                let (post, answer) = post_of(SENDERS[speaker], &(texts.join("\n") + "\n"));
                answers.push((texts, speaker, answer));
                post
            }).collect();
            house.hub.step(posts.into_iter()).expect("the file is fine");
            for (texts, speaker, answer) in answers {
                match answer.try_recv().expect("an answer") {
                    Ok(ids) => stored.push((texts, speaker, ids)),
                    Err(why) => {
                        prop_assert_eq!(why, ErrorAnswer::StorageFull);
                        refused.extend(texts);
                    }
                }
            }
            house.system.forget_plan();
            house.system.limit_stamps(None);
        }
        house.system.append("\n");
        house.tick();

        // No foreign byte is gone or has moved.
        let file = house.dir.read();
        for (offset, bytes) in house.system.foreign() {
            prop_assert_eq!(&file[offset..offset + bytes.len()], &bytes[..]);
        }
        // This server has the same history as one that starts now, and Ann has heard all of it.
        let fresh = house.reload();
        let place = |history: &History| (history.end(), history.last_id(), history.holes());
        prop_assert_eq!(place(&house.hub.history), place(&fresh));
        let stands = messages_of(&fresh);
        prop_assert_eq!(&messages_of(&house.hub.history), &stands);
        prop_assert_eq!(&ann.hears(), &stands[before..]);
        // Each message that was stored has the id that was told. It stands in the file once, in the
        // order of its speaker. A message that was refused does not.
        for (texts, _, ids) in &stored {
            let ids = ids.first_id..=ids.last_id;
            let found: Vec<_> =
                stands.iter().filter(|(id, _)| ids.contains(id)).map(|(_, text)| text).collect();
            prop_assert_eq!(found, texts.iter().collect::<Vec<_>>());
            prop_assert_eq!(ids.count(), texts.len());
        }
        for speaker in 0..3 {
            let mine = format!(r#"{{"by":{speaker},"#);
            let found = stands.iter().map(|(_, text)| text).filter(|text| text.starts_with(&mine));
            let said = stored.iter().filter(|(_, by, _)| *by == speaker).flat_map(|(texts, ..)| texts);
            prop_assert!(found.eq(said), "{:?} of {} messages", stands, speaker);
        }
        prop_assert!(stands.iter().all(|(_, text)| !refused.contains(text)));
        // Each message has its own stamp, and no other message has a sender.
        prop_assert_eq!(house.hub.journal.stamped_lines(), Some(fresh.last_id()));
        let mut senders = house.stamps();
        for (_, speaker, ids) in &stored {
            for id in ids.first_id..=ids.last_id {
                let (ts, from) = senders.remove(&id).expect("the message stands in the file");
                prop_assert!(ts.is_some(), "message {} has no time", id);
                prop_assert_eq!(from.as_deref(), SENDERS[*speaker]);
            }
        }
        prop_assert!(senders.values().all(|(_, from)| from.is_none()), "{:?}", senders);
    }
}
