//! `/ws?history=each`: the history message by message, to clients of any size limit.

use crate::{house::*, support::*};

#[test]
fn each_message_is_a_frame_with_its_stamp_and_then_comes_the_end() {
    let server = Server::on("1\n\nnonsense\n\"four\"\n");
    server.posts(ANN, r#"{ "five" : "é" }"#);
    let mut raw = server.reads("/ws?history=each");
    let epoch = server.join().history.epoch;
    let ts = server.told("/messages")[2].ts.expect("a time");
    assert_eq!(raw.text(), r#"{"type":"new_message","data":1,"id":1}"#);
    assert_eq!(raw.text(), r#"{"type":"new_message","data":"four","id":4}"#);
    assert_eq!(
        raw.text(),
        format!(
            "{{\"type\":\"new_message\",\"data\":{{ \"five\" : \"é\" }},\"id\":5,\"ts\":{ts},\
             \"from\":\"{ANN_SENDER}\"}}"
        )
    );
    let end = |first_id: u64, resumed: &str| {
        format!(
            "{{\"type\":\"history_end\",\"first_id\":{first_id},\"last_id\":5,\
             \"epoch\":\"{epoch}\"{resumed}}}"
        )
    };
    assert_eq!(raw.text(), end(1, ""));
    // What comes now is live.
    let heard = server.join().says("6");
    assert_eq!(raw.hears("6"), heard);

    let server_end = |path: &str| {
        let mut raw = server.reads(path);
        let (messages, end) = read_each(&mut raw);
        let ids: Vec<_> = messages.iter().map(|told| told.id).collect();
        (ids, end["first_id"].as_u64(), end["resumed"].as_bool())
    };
    let each = "/ws?history=each";
    assert_eq!(server_end(&format!("{each}&after=4")), (vec![5, 6], Some(5), Some(true)));
    assert_eq!(server_end(&format!("{each}&after=6")), (vec![], Some(7), Some(true)));
    assert_eq!(server_end(&format!("{each}&after=99")), (vec![1, 4, 5, 6], Some(1), Some(false)));
    assert_eq!(server_end(&format!("{each}&limit=2")), (vec![5, 6], Some(5), None));
    assert_eq!(server_end(&format!("{each}&limit=0")), (vec![], Some(7), None));
    assert_eq!(server_end(&format!("{each}&since=1h")), (vec![5, 6], Some(5), None));
    let server = Server::start();
    let (messages, end) = read_each(&mut server.reads(each));
    assert!(messages.is_empty());
    assert_eq!((end["first_id"].as_u64(), end["last_id"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn any_other_way_to_send_the_history_is_refused() {
    let server = Server::start();
    for form in ["", "all", "EACH", "1"] {
        let mut raw = server.raw();
        raw.send(server.head(&format!("/ws?history={form}"), &[]));
        raw.response().refuses(400, &["each"]);
    }
}

#[test]
fn a_slow_reader_of_a_long_history_gets_all_of_it_in_order_while_others_talk() {
    const MESSAGES: usize = 60_000;
    let lines: String = (1..=MESSAGES).map(|n| format!("{{\"n\":{n},\"c\":\"été\"}}\n")).collect();
    let server = Server::on(lines);
    let before = server.status("VmHWM");
    let mut slow = server.raw_narrow();
    slow.send(server.head("/ws?history=each", &[]));
    assert_eq!(slow.head_alone().status, 101);
    let mut ann = server.join_at(&format!("/ws?limit=0&{ANN}"));
    let mut told = Vec::new();
    let mut said = MESSAGES;
    while told.len() < MESSAGES {
        told.push(Told::of(&slow.text()));
        if told.len() % 6_000 == 0 {
            said += 1;
            ann.says(&format!("{{\"n\":{said},\"c\":\"été\"}}"));
        }
    }
    // It joined before Ann spoke, so the history ends where it was then.
    let end = json(&slow.text());
    assert_eq!(
        (end["type"].as_str(), end["last_id"].as_u64()),
        (Some("history_end"), Some(60_000))
    );
    told.extend((MESSAGES..said).map(|_| Told::of(&slow.text())));
    for (at, told) in told.iter().enumerate() {
        let id = at as u64 + 1;
        assert_eq!(
            (told.id, &*told.data),
            (id, &*json(&format!("{{\"n\":{id},\"c\":\"été\"}}")).to_string())
        );
        assert_eq!(told.from.is_some(), at >= MESSAGES);
    }
    let more = server.status("VmHWM") - before;
    assert!(more < 4_000, "{more} kB more for a history that is not held");
}
