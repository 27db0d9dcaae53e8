use std::{fs, net::Ipv4Addr};

use clap::Parser;

use super::*;
use crate::testing::Dir;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// SHA-256 of `foo` and `bar`.
const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const BAR: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";

fn access(flags: &[&str]) -> Arc<Access> {
    let flags = ["txtcord"].iter().chain(flags);
    Arc::new(Access::new(&Config::parse_from(flags)).expect("the rules make sense"))
}

fn asks(access: &Arc<Access>, path: &str, fields: &[(&str, &str)]) -> Result<Caller, HttpRefusal> {
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let resource = Resource::at(request.uri().path());
    access.caller(&request, &resource, PEER)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

#[test]
fn a_sender_is_what_a_request_proves_and_nothing_else() {
    let dir = Dir::new();
    let rules = format!("ann {FOO} * admin\nann {BAR} * read\n* - messages read,post\n");
    dir.write(&rules);
    let access = access(&["--access", dir.file().to_str().expect("UTF-8")]);
    let check = |path: &str, fields: &[(&str, &str)], expected: Result<Option<&str>, u16>| {
        let caller = asks(&access, path, fields);
        let sender = caller.as_ref().map(Caller::sender).map_err(|no| no.status.as_u16());
        assert_eq!(
            sender.as_ref().map(Option::as_deref),
            expected.as_ref().map(|who| *who),
            "{path} {fields:?}"
        );
    };
    let ann = Ok(Some("ann"));
    let key = "correct horse";
    let pseudonym = pseudonym::of("eve", key.as_bytes()).expect("a pseudonym").sender;
    let eve = Ok(Some(&*pseudonym));
    check("/ws", &[], Ok(None));
    check("/ws?as=ann", &[], Ok(None));
    check("/ws?token=foo", &[], ann);
    check("/messages?token=bar", &[], ann);
    check("/ws", &[("authorization", "Bearer foo")], ann);
    check("/ws", &[("authorization", "bEARER  foo ")], ann);
    check("/ws?token=foo&as=eve&key=short", &[("txtcord-key", "x")], ann);
    check("/ws?token=nobodys", &[("authorization", "Bearer foo")], ann);
    for (path, fields) in [
        ("/ws?token=nobodys", &[][..]),
        ("/ws?token=", &[]),
        ("/ws?token=foo&token=nobodys", &[]),
        ("/ws?as=eve&key=correct+horse&token=nobodys", &[]),
        ("/ws?token=foo", &[("authorization", "Bearer nobodys")]),
        ("/ws", &[("authorization", "Bearer")]),
        ("/ws", &[("authorization", "Bearer ")]),
        ("/ws", &[("authorization", "Bearerfoo")]),
        ("/ws", &[("authorization", "Bearer foo"), ("authorization", "Bearer foo")]),
    ] {
        check(path, fields, Err(401));
    }
    // Another scheme is for a proxy.
    check("/ws", &[("authorization", "Basic Zm9vOmJhcg==")], Ok(None));
    check("/ws?as=eve&key=correct+horse", &[], eve);
    check("/ws?as=eve", &[("txtcord-key", key)], eve);
    check("/ws?as=bob&as=eve&key=correct%20horse", &[], eve);
    for query in ["key=correct+horse", "as=eve&key=7%20bytes", "as=e~ve&key=correct+horse"] {
        check(&format!("/ws?{query}"), &[], Err(400));
    }
    // Where there is no sender, nothing is looked at.
    check("/?token=nobodys", &[], Ok(None));
    check("/healthz?token=nobodys", &[], Ok(None));
}

#[test]
fn without_an_access_file_everybody_may_read_post_and_make_channels() {
    let access = access(&[]);
    let caller = asks(&access, "/messages", &[]).expect("it may ask");
    assert_eq!(caller.rights(&name("dev")).json(), r#"["read","post"]"#);
    caller.check_making(&name("dev")).expect("it may");
    let refusal = caller.check(Right::Admin, &name("dev")).expect_err("nobody may").to_string();
    assert!(refusal.contains("admin") && refusal.contains("dev"), "{refusal}");
    assert_eq!(asks(&access, "/messages?token=foo", &[]).expect_err("it is nobody's").status, 401);
}

#[test]
fn rules_that_are_read_again_hold_at_once_and_a_mistake_keeps_the_old_ones() {
    let dir = Dir::new();
    dir.write(format!("ann {FOO} dev post,read\n"));
    let access = access(&["--access", dir.file().to_str().expect("UTF-8")]);
    let ann = asks(&access, "/dev?token=foo", &[]).expect("it may ask");
    let nobody = asks(&access, "/dev", &[]).expect("it may ask");
    let is = |of_ann: &str, of_nobody: &str| {
        assert_eq!(ann.rights(&name("dev")).json(), of_ann);
        assert_eq!(nobody.rights(&name("dev")).json(), of_nobody);
    };
    is(r#"["read","post"]"#, "[]");
    let generation = access.generation();
    dir.write("ann nonsense\n");
    let error = access.read_again().expect_err("it makes no sense").to_string();
    assert!(error.contains(":1: a rule has four columns"), "{error}");
    is(r#"["read","post"]"#, "[]");
    assert_eq!(access.generation(), generation);
    // The token is another one's, so that this caller is nobody's any more.
    dir.write(format!("ann {BAR} * admin\nbob {FOO} * admin\n* - dev read\n"));
    access.read_again().expect("it makes sense");
    is("[]", r#"["read"]"#);
    assert_ne!(access.generation(), generation);
    fs::remove_file(dir.file()).expect("it is there");
    access.read_again().expect_err("it is gone");
    is("[]", r#"["read"]"#);
}

#[test]
fn posts_are_counted_for_a_person_under_any_name_or_else_for_an_address() {
    let access = access(&["--post-rate", "1/s", "--post-burst", "2"]);
    let caller = |path: &str| asks(&access, path, &[]).expect("it may ask");
    let spend = |path: &str| {
        let caller = caller(path);
        (0..).take_while(|_| caller.count_posts(1).is_ok()).count()
    };
    assert_eq!(spend("/messages"), 2);
    assert_eq!(spend("/messages?as=ann"), 0, "a claim is no person");
    assert_eq!(spend("/messages?as=ann&key=correct+horse"), 2);
    assert_eq!(spend("/messages?as=bob&key=correct+horse"), 0, "it is the same person");
    assert_eq!(spend("/messages?as=bob&key=battery+staple"), 2);
    let too_many = caller("/messages?as=eve&key=a+third+key").count_posts(3).expect_err("too many");
    assert_eq!(too_many.retry_after, None);
}
