//! `since=`: the messages from a time on.

use crate::support::*;

#[test]
fn the_messages_from_a_time_on_are_told_in_each_way_to_say_a_time() {
    let server = Server::start();
    server.posts("", "1");
    let first = server.told("/messages")[0].ts.expect("a time");
    until("the clock has moved on by more than a second", || now_ms() > first + 1_100);
    server.posts("", "2");
    let second = server.told("/messages")[1].ts.expect("a time");
    let stamp = server.stamps()[1].split_once(' ').expect("a stamp").0.to_owned();
    let seconds = second / 1000;
    let local = stamp.replace('Z', "%2B00:00");

    let ids = |server: &Server, since: &str| -> Vec<u64> {
        let told = server.told(&format!("/messages?since={since}"));
        let ids: Vec<u64> = told.iter().map(|told| told.id).collect();
        // A socket that asks the same is told the same.
        let history = server.join_at(&format!("/ws?since={since}")).history;
        assert_eq!(history.messages().iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
        assert_eq!(history.resumed, None);
        ids
    };
    let check = |server: &Server| {
        assert_eq!(ids(server, "0"), [1, 2]);
        assert_eq!(ids(server, "1h"), [1, 2]);
        assert_eq!(ids(server, "1h30m"), [1, 2]);
        assert_eq!(ids(server, &stamp), [2]);
        assert_eq!(ids(server, &local), [2]);
        assert_eq!(ids(server, &stamp.replace('Z', "+00:00")), [2]);
        assert_eq!(ids(server, &seconds.to_string()), [2]);
        assert_eq!(ids(server, &(seconds + 100).to_string()), [] as [u64; 0]);
        assert_eq!(ids(server, "2099-01-01T00:00:00Z"), [] as [u64; 0]);
    };
    check(&server);
    check(&server.restart());
}

#[test]
fn since_goes_with_the_other_questions() {
    let server = Server::on(SEED);
    (8..=12).for_each(|n| assert_eq!(server.posts("", &n.to_string()), n));
    let ids = |query: &str| -> Vec<u64> {
        server.told(&format!("/messages?{query}")).iter().map(|told| told.id).collect()
    };
    // Messages without a time are older than all that have one.
    assert_eq!(ids("since=1h"), [8, 9, 10, 11, 12]);
    assert_eq!(ids("since=1h&after=9"), [10, 11, 12]);
    assert_eq!(ids("since=1h&after=2"), [8, 9, 10, 11, 12]);
    assert_eq!(ids("since=1h&limit=2"), [8, 9]);
    assert_eq!(ids("since=1h&before=10"), [8, 9]);
    assert_eq!(ids("since=1h&q=1"), [10, 11, 12]);
    let told = server.told("/messages,messages?since=1h");
    assert!(told.iter().all(|told| told.id >= 8) && told.len() >= 5, "{told:?}");

    let history = |query: &str| server.join_at(&format!("/ws?{query}")).history;
    assert_eq!(history("since=1h&limit=2").said(), ["11", "12"]);
    let resumed = history("since=1h&after=9");
    assert_eq!((resumed.said(), resumed.resumed), (vec!["10", "11", "12"], Some(true)));
    let cut = history("since=1h&after=3");
    assert_eq!((cut.first_id, cut.resumed), (8, Some(false)), "never a part of what it missed");

    // A follower begins there, and goes on.
    let mut follower = server.listens("/messages?since=1h&follow=1", &[]);
    let next = |follower: &mut Listener| follower.json()["id"].as_u64().expect("an id");
    assert_eq!((8..=12).map(|_| next(&mut follower)).collect::<Vec<_>>(), [8, 9, 10, 11, 12]);
    server.posts("", "13");
    assert_eq!(next(&mut follower), 13);
}

#[test]
fn what_is_no_time_is_refused_with_an_example() {
    let server = Server::start();
    let words = ["since=10m", "since=2026-11-23T14:02:15Z"];
    for since in [
        "",
        "yesterday",
        "-1",
        "1.5",
        "10",
        "2026-11-23",
        "2026-11-23T14:02:15",
        "%ff",
        "10m%00",
        "2026-11-23T14:02:15%2B1:00",
        "2026-11-23T14:02:15%2B25:00",
        "1732370535123",
        "1h-",
        "2026-11-23T14:02:15%C3%A901:00",
        "99999999999999999999999",
    ] {
        // Unix seconds of long ago are a time.
        if since == "10" {
            server.has(&format!("GET /messages?since={since}"), &[]);
            continue;
        }
        server.asks(&format!("GET /messages?since={since}"), &[]).refuses(400, &words);
        let mut raw = server.raw();
        raw.send(server.head(&format!("/ws?since={since}"), &[]));
        raw.response().refuses(400, &words);
    }
}
