use super::*;

#[test]
fn a_refusal_is_a_sentence_and_ends_the_connection() {
    let refused = HttpRefusal::unavailable("come back later");
    let expected = "Retry-After: 5\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n\
                    Connection: close\r\n\r\ncome back later\n";
    let response = String::from_utf8(refused.response(&Method::GET)).unwrap();
    let rest = response.strip_prefix("HTTP/1.1 503 Service Unavailable\r\nDate: ").expect("a date");
    let (date, rest) = rest.split_once("\r\n").expect("more lines");
    assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    assert_eq!(rest, expected);
    let refused = HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, "é")
        .with(header::SEC_WEBSOCKET_VERSION, "13");
    let response = String::from_utf8(refused.response(&Method::GET)).unwrap();
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    assert!(response.contains("\r\nContent-Length: 3\r\n"), "{response}");
}
