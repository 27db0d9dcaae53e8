use proptest::prelude::*;

use super::*;
use crate::{name::RESERVED, testing::tries};

/// Methods that clients send; none but the first six is taken anywhere.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"];

#[test]
fn every_path_names_one_resource_and_each_resource_takes_its_methods() {
    #[track_caller]
    fn check(path: &str, resource: Resource, methods: &str) {
        assert_eq!(Resource::at(path), resource, "{path}");
        assert_eq!(resource.methods(), methods, "{path}");
        for method in METHODS {
            let taken = resource.check(&method.parse().expect("a method"), path);
            if methods.split(", ").any(|one| one == method) {
                assert!(taken.is_ok(), "{method} {path}");
                continue;
            }
            let refusal = taken.expect_err("it is not taken");
            match resource {
                Resource::Nothing => {
                    assert_eq!((refusal.status.as_u16(), refusal.headers.len()), (404, 0))
                }
                _ => {
                    assert_eq!(refusal.status, 405, "{method} {path}");
                    assert_eq!(
                        refusal.headers,
                        [(header::ALLOW, methods.into())],
                        "{method} {path}"
                    );
                }
            }
        }
    }
    let name = |text| Name::parse(text).expect("a name");
    let default = Name::default;
    for file in &PAGE {
        check(file.path, Resource::Page(file), READ_ONLY);
    }
    check("/app", Resource::Nothing, "");
    check("/app/", Resource::Nothing, "");
    check("/app/index.html", Resource::Nothing, "");
    check("/ws", Resource::WebSocket(default()), "GET");
    check("/messages", Resource::Messages(default()), "GET, HEAD, POST, PUT, OPTIONS");
    let of_message = "GET, HEAD, PATCH, DELETE, OPTIONS";
    check("/messages/1", Resource::Message(default(), 1), of_message);
    check("/messages/007", Resource::Message(default(), 7), of_message);
    let last = Resource::Message(default(), u64::MAX);
    check("/messages/99999999999999999999", last, of_message);
    check("/messages.txt", Resource::TextFile(default()), READ_ONLY);
    check("/messages/ws", Resource::WebSocket(default()), "GET");
    check("/healthz", Resource::Health, READ_ONLY);
    check("/readyz", Resource::Ready, READ_ONLY);
    check("/metrics", Resource::Metrics, READ_ONLY);
    check("/me", Resource::Me, READ_ONLY);
    check("/channels", Resource::Channels, READ_ONLY);
    check("/dev", Resource::Messages(name("dev")), "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    check("/dev/ws", Resource::WebSocket(name("dev")), "GET");
    check("/dev/42", Resource::Message(name("dev"), 42), of_message);
    let of_operation = "PUT, DELETE, OPTIONS";
    check("/dev/42/pin", Resource::Pin(name("dev"), 42), of_operation);
    let reaction = |key: &str| Resource::Reaction(name("dev"), 42, key.to_owned());
    check("/dev/42/reactions/a", reaction("a"), of_operation);
    check("/dev/42/reactions/%F0%9F%91%8D", reaction("👍"), of_operation);
    check("/dev/42/reactions/a%2Fb+c", reaction("a/b+c"), of_operation);
    check("/dev/42/reactions/%00", reaction("\0"), of_operation);
    check("/dev/42/reactions/", reaction(""), of_operation);
    check("/dev.txt", Resource::TextFile(name("dev")), READ_ONLY);
    check("/wsx/ws", Resource::WebSocket(name("wsx")), "GET");
    check("/txt.txt", Resource::TextFile(name("txt")), READ_ONLY);
    check("/*", Resource::Several(Names::All), READ_ONLY);
    let both = Names::These(vec![name("ops"), name("dev")]);
    check("/ops,dev", Resource::Several(both.clone()), READ_ONLY);
    check("/ops,dev,ops,ops", Resource::Several(both.clone()), READ_ONLY);
    // As libraries write a list in a path.
    check("/ops%2Cdev", Resource::Several(both.clone()), READ_ONLY);
    check("/ops%2cdev,ops", Resource::Several(both), READ_ONLY);
    check("/%2A", Resource::Several(Names::All), READ_ONLY);
    check("/%2a", Resource::Several(Names::All), READ_ONLY);
    for path in [
        "",
        "*",
        "//",
        "/WS",
        "/ws/",
        "/Messages",
        "/messages/",
        "/messages/-1",
        "/messages/+1",
        "/messages/1.0",
        "/messages/x",
        "/messages/1/",
        "/messages/1/2",
        "/messages/1/pin/",
        "/messages/x/pin",
        "/messages/1/reactions",
        "/messages/1/reactions/a/b",
        "/messages/1/reactions/%ff",
        "/messages/1/Pin",
        "/messages/%31",
        "/messages.txt/",
        "/messages/../ws",
        "/metrics/x",
        "/../messages.txt",
        "/%2e%2e/messages.txt",
        "/messages%00",
        "/Dev",
        "/dev/",
        "/dev/WS",
        "/dev/ws/",
        "/dev/1/ws",
        "/dev.txt.txt",
        "/dev.TXT",
        "/.txt",
        "/..",
        "/.",
        "/%2e%2e",
        "/%2E%2e/dev",
        "/dev%00",
        "/dev%2ftxt",
        "/dev/../ops",
        "/ws/ws",
        "/channels/ws",
        "/channels.txt",
        "/me/1",
        "/app",
        "/app/1",
        "/metrics/ws",
        "/healthz.txt",
        "/*/ws",
        "/*,dev",
        "/dev,",
        "/,dev",
        "/,",
        "/dev,Ops",
        "/dev,ws",
        "/dev,ops/ws",
        "/dev,ops.txt",
        "/dev%2C",
        "/%64ev",
        "/%64ev,ops",
        "/dev%2Cops.txt",
        "/dev%2Cops/ws",
        "/%252A",
    ] {
        check(path, Resource::Nothing, "");
    }
}

#[test]
fn every_file_of_the_page_is_served_under_its_own_name() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page");
    let mut expected = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        expected.push(match &*name {
            "index.html" => "/".to_owned(),
            _ => format!("/app/{name}"),
        });
    }
    expected.sort();
    let mut served: Vec<_> = PAGE.iter().map(|file| file.path.to_owned()).collect();
    served.sort();
    assert_eq!(served, expected);
    // What one part imports is there, and the document names all scripts, so that a browser asks for
    // them at once.
    for PageFile { path, text, .. } in &PAGE {
        for line in text.lines().filter(|line| line.starts_with("import ")) {
            let (_, imported) = line.rsplit_once("'./").expect("it is imported from beside it");
            let imported = format!("/app/{}", imported.trim_end_matches("';"));
            assert!(served.contains(&imported), "{path} imports {imported}");
        }
        assert!(*path == "/" || PAGE[0].text.contains(&format!("=\"{}\"", &path[1..])), "{path}");
    }
}

#[test]
fn what_the_server_answers_at_its_root_is_no_name_of_a_channel() {
    // Else a file of that name would be a channel that nobody can reach.
    for name in RESERVED {
        assert!(!matches!(Resource::at(&format!("/{name}")), Resource::Messages(_)), "{name}");
        assert_eq!(Resource::at(&format!("/{name}.txt")), Resource::Nothing, "{name}");
        assert_eq!(Resource::at(&format!("/{name}/1")), Resource::Nothing, "{name}");
    }
    // Every short name there is, and all that the server answers itself.
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    let short = letters.chars().flat_map(|a| letters.chars().map(move |b| format!("{a}{b}")));
    let answered = ["ws", "channels", "me", "healthz", "readyz", "metrics"].map(str::to_owned);
    for name in short.chain(answered) {
        if own(&format!("/{name}")).is_some() {
            assert!(RESERVED.contains(&&*name), "{name} is answered and not reserved");
        }
    }
}

proptest! {
    #![proptest_config(tries(2048))]

    #[test]
    fn a_path_names_a_channel_only_by_its_name(
        path in prop_oneof![any::<String>(), "/[a-zA-Z0-9_.,/%*-]{0,12}", "/[a-z0-9]{1,8}(/[a-z0-9]{0,4})?"],
    ) {
        let rebuilt = match Resource::at(&path) {
            Resource::Messages(name) => format!("/{name}"),
            Resource::TextFile(name) => format!("/{name}.txt"),
            Resource::WebSocket(_) if path == "/ws" => path.clone(),
            Resource::WebSocket(name) => format!("/{name}/ws"),
            Resource::Message(name, id) => {
                let (before, given) = path.rsplit_once('/').expect("an id follows a slash");
                prop_assert_eq!(given.parse::<u64>().unwrap_or(u64::MAX), id);
                prop_assert_eq!(before, format!("/{name}"));
                path.clone()
            }
            _ => path.clone(),
        };
        prop_assert_eq!(rebuilt, path);
    }
}

#[test]
fn who_asks_in_vain_is_told_where_things_are() {
    #[track_caller]
    fn check(method: Method, path: &str, sentence: &str) {
        let refusal = Resource::at(path).check(&method, path).expect_err("it is refused");
        assert_eq!(refusal.sentence, sentence, "{path}");
    }
    let places = "; the page is at /, the chat at /ws and the history at /messages, and /channels \
                  lists the channels";
    let nothing = |why: &str| format!("{why}{places}");
    check(Method::GET, "/dev/x", &nothing("nothing is here"));
    check(Method::GET, "//", &nothing("nothing is here"));
    check(Method::PUT, "/Dev", &nothing("names of channels are written in lower case: /dev"));
    check(Method::PUT, "/app", &nothing(&NotAName::Reserved.to_string()));
    check(Method::PUT, "/app.txt", &nothing("nothing is here"));
    for path in ["/..", "/%2e%2e", "/dev%00", "/a.b", "/-a"] {
        check(Method::PUT, path, &nothing(&NotAName::Malformed.to_string()));
    }
    check(Method::POST, "/ws", "a WebSocket begins with GET");
    check(Method::DELETE, "/messages.txt", "/messages.txt takes GET, HEAD, OPTIONS");
    let sentence = "/messages is the default channel, which cannot be put away";
    check(Method::DELETE, "/messages", sentence);
    let sentence = format!("/metrics takes GET, HEAD, OPTIONS; {}", NotAName::Reserved);
    check(Method::PUT, "/metrics", &sentence);
}
