use clap::Parser;

use super::*;

fn addresses(flags: &[&str]) -> Addresses {
    let flags = ["txtcord"].iter().chain(flags);
    Addresses::new(&Config::parse_from(flags))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn only_a_trusted_proxy_says_whom_a_request_is_for() {
    let addresses = addresses(&["--trust-proxy", "10.0.0.0/8,::1", "--trust-proxy", "127.0.0.1"]);
    let check = |peer: &str, fields: &[&str], expected: &str| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("x-forwarded-for", field.parse().expect("a value"));
        }
        assert_eq!(addresses.client(ip(peer), &headers), ip(expected), "{peer} {fields:?}");
    };
    check("1.2.3.4", &[], "1.2.3.4");
    check("1.2.3.4", &["5.6.7.8"], "1.2.3.4");
    check("127.0.0.1", &[], "127.0.0.1");
    check("127.0.0.1", &["5.6.7.8"], "5.6.7.8");
    check("::ffff:127.0.0.1", &["5.6.7.8"], "5.6.7.8");
    check("127.0.0.1", &["9.9.9.9, 5.6.7.8"], "5.6.7.8");
    check("127.0.0.1", &["9.9.9.9, 5.6.7.8 , 10.1.1.1,10.2.2.2"], "5.6.7.8");
    check("127.0.0.1", &["9.9.9.9, 5.6.7.8", "10.1.1.1"], "5.6.7.8");
    check("127.0.0.1", &["10.1.1.1,10.2.2.2"], "10.1.1.1");
    check("::1", &["2001:db8::7"], "2001:db8::7");
    check("127.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7");
    check("127.0.0.1", &["[2001:db8::7]"], "2001:db8::7");
    check("127.0.0.1", &["5.6.7.8:4711"], "5.6.7.8");
    check("127.0.0.1", &["5.6.7.8, unknown"], "127.0.0.1");
    check("127.0.0.1", &["5.6.7.8, unknown, 10.1.1.1"], "10.1.1.1");
    check("127.0.0.1", &[""], "127.0.0.1");
}

#[test]
fn an_address_has_so_many_places_and_a_customer_of_ipv6_has_no_more() {
    let addresses = addresses(&["--max-clients-per-address", "2", "--trust-proxy", "10.0.0.1"]);
    let is = |counted: &Counted, expected: &str| {
        let got = match counted {
            Counted::Within(Some(_)) => "counted",
            Counted::Within(None) => "not counted",
            Counted::Above(_) => "above",
            Counted::FarAbove => "far above",
        };
        assert_eq!(got, expected);
    };
    let first = addresses.count(ip("1.2.3.4"));
    is(&first, "counted");
    let second = addresses.count(ip("::ffff:1.2.3.4"));
    is(&second, "counted");
    let above: Vec<_> = (0..EXTRA_CONNECTIONS).map(|_| addresses.count(ip("1.2.3.4"))).collect();
    above.iter().for_each(|counted| is(counted, "above"));
    is(&addresses.count(ip("1.2.3.4")), "far above");
    is(&addresses.count(ip("1.2.3.5")), "counted");
    // Those that are refused take no place of those that are served, however long they stay.
    drop(first);
    let third = addresses.count(ip("1.2.3.4"));
    is(&third, "counted");
    is(&addresses.count(ip("1.2.3.4")), "far above");
    drop((second, third, above));
    assert!(addresses.counts.lock().expect("no panic here").is_empty());
    is(&addresses.count(ip("10.0.0.1")), "not counted");
    let _six = [addresses.count(ip("2001:db8::1")), addresses.count(ip("2001:db8::ffff:2"))];
    is(&addresses.count(ip("2001:db8::3")), "above");
    is(&addresses.count(ip("2001:db8:0:1::1")), "counted");
}
