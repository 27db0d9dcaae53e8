//! The engine over TLS: `rediss://`, which needs the cargo feature `cluster-tls`.

use crate::{
    engine::{Engine, Keeps, is_here},
    nodes::{CALM, within},
    support::*,
};

/// Somebody who vouches for 127.0.0.1: `ca.pem`, `node.pem` and `node.key` in the folder.
fn certify(dir: &Dir) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    shell(&format!(
        "cd {dir} && exec 3>&2 2> log
        openssl req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=somebody &&
        openssl req {key} -keyout node.key -out node.csr -subj /CN=node &&
        echo subjectAltName=IP:127.0.0.1 > names &&
        openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out node.pem || {{ cat log >&3; exit 1; }}",
        dir = dir.path().display()
    ));
}

#[test]
fn a_node_speaks_tls_with_an_engine_and_only_if_somebody_it_trusts_vouches_for_that() {
    if !is_here() {
        return;
    }
    let dir = Dir::new();
    certify(&dir);
    let of = |name: &str| dir.join(name).display().to_string();
    let (node, key, ca) = (of("node.pem"), of("node.key"), of("ca.pem"));
    let more = ["--tls-cert-file", &node, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let flags = ["--tls-port", "{tls}", "--tls-auth-clients", "no"];
    let Some(engine) = Engine::with(Keeps::Always, &[&more[..], &flags].concat()) else { return };
    let url = format!("rediss://127.0.0.1:{}/0", engine.tls_port());
    let setup = || Setup::new().flags(&["--cluster", &url, "--cluster-settle", "0s"]);

    let trusting = setup().variable("SSL_CERT_FILE", ca.as_str()).start();
    let is_ready = |server: &Server| server.asked(ask("GET /readyz", &[])).status == 200;
    within(CALM, "it is ready", || is_ready(&trusting), || trusting.log());
    trusting.join().says(r#""by TLS""#);
    assert_eq!(engine.meta("last"), "1");

    let wary = setup().start();
    let says_why = || wary.log().contains("is unavailable") && wary.log().contains("certificate");
    within(CALM, "it says why it does not trust the engine", says_why, || wary.log());
    assert!(!is_ready(&wary), "{}", wary.log());
}
