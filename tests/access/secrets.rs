//! Tokens, keys and queries are in no log, at any level.

use crate::house::*;

#[test]
fn no_secret_is_logged_at_any_level() {
    let rules = format!("ann {FOO} * admin\n");
    let server = with_rules(&rules).flags(&["--log-level", "trace"]).start();
    let (key, token) = ("a-key-that-is-secret", "a-token-that-is-secret");
    for query in [
        format!("as=ann&key={key}"),
        format!("token={token}"),
        format!("token=foo&key={key}"),
        format!("as=~&key={key}"),
        format!("after=x&key={key}"),
    ] {
        for path in ["/messages", "/me", "/channels", "/ws", "/nix", "/nix/ws", "/messages/1"] {
            server.has(&format!("GET {path}?{query}"), &[]);
            server.does(&format!("POST {path}"), &query, "{");
            server.does(&format!("PUT {path}"), &query, "");
        }
        server.upgrade(&format!("/ws?{query}"), &[]);
    }
    let bearer = format!("Authorization: Bearer {token}");
    let field = format!("Txtcord-Key: {key}");
    server.has("GET /me", &[&bearer]);
    server.has("GET /me?as=ann", &[&field]);
    server.has("GET /me", &[&field]);
    server.asked(format!("GET /me?{key}{token} HTTP/1.1\r\nHost: a b\r\n\r\n"));
    let mut client = server.join_at("/ws?token=foo");
    client.says("1");
    let log = server.log();
    assert!(log.contains("refused with 401"), "the log tells of refusals at this level: {log}");
    for secret in [key, token, "foo", "as=", "key=", "after="] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
