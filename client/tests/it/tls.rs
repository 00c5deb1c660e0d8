//! Two ends that do not fit: what the error says helps, and that nobody tries again. And the HTTP port, where they do.

use std::{fs, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use test_support::{Authority, Signed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use zbl_client::{Client, Credentials, Error, HttpPort, Identity, Retry, pem};

use crate::scripted::Script;

/// A third of them is told nothing on a small machine.
const TRIES: u32 = 50;

/// Answers every connection by TLS with the protocol that was agreed on, and ends it; the runtime's end stops it.
async fn serve(shows: &Signed, protocols: &[&str], clients: Option<&Authority>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(pem::certificates(&authority.certificate()).unwrap());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(pem::certificates(&shows.certificate).unwrap(), pem::private_key(&shows.key).unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
            let _ = stream.write_all(&agreed).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

fn trusting(authority: &Authority) -> Credentials {
    Credentials::default().with_tls(Some(&authority.certificate()), None).unwrap()
}

/// That a call ends with an error that says this, and that it is of no use to try again. What the other end says last is
/// lost where this one finds first that it cannot write any more; that is an outage, and another try tells.
async fn assert_refused(address: &str, credentials: &Credentials, saying: &str) {
    for _ in 0..TRIES {
        let client = Client::connect_lazy_with(address, credentials).unwrap().with_retry(Retry::NEVER);
        let error = client.strategies().await.unwrap_err();
        if error.message().contains(saying) {
            return assert!(!error.is_transient(), "{error}");
        }
        assert!(error.is_transient(), "{error}");
    }
    unreachable!("never told in {TRIES} tries: {saying}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_helps_and_is_not_transient() {
    let [authority, other] = [(); 2].map(|()| Authority::new().unwrap());
    let secure = serve(&authority.sign("server", &["127.0.0.1"]).unwrap(), &["h2"], None).await;
    assert_refused(&format!("https://{secure}"), &trusting(&other), "UnknownIssuer; give --ca-cert FILE").await;
    assert_refused(&secure, &Credentials::default(), "try https://").await;

    let plain = Script::default().serve().await;
    assert_refused(&format!("https://{}", plain.address()), &trusting(&authority), "try http://").await;

    let named = serve(&authority.sign("named", &["bank.example"]).unwrap(), &["h2"], None).await;
    assert_refused(&format!("https://{named}"), &trusting(&authority), "give --server-name").await;
}

/// By the HTTP port: over HTTP/2 the alert is lost where the client finds first that it cannot write any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_asked_for_is_missed_by_name() {
    let authority = Authority::new().unwrap();
    let address = serve(&authority.sign("server", &["127.0.0.1"]).unwrap(), &["http/1.1"], Some(&authority)).await;
    let port = HttpPort::at(&format!("https://{address}"), &trusting(&authority)).unwrap();
    let error = Error::lost(port.dial().await.unwrap().read_u8().await.unwrap_err());
    assert!(error.message().contains("give --client-cert FILE") && !error.is_transient(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_port_speaks_http_1_alone() {
    let authority = Authority::new().unwrap();
    let address = serve(&authority.sign("server", &["127.0.0.1"]).unwrap(), &["h2", "http/1.1"], None).await;
    let port = HttpPort::at(&format!("https://{address}/"), &trusting(&authority)).unwrap();
    assert_eq!(port.authority(), address);
    let mut agreed = String::new();
    port.dial().await.unwrap().read_to_string(&mut agreed).await.unwrap();
    assert_eq!(agreed, "http/1.1");
    // Nothing goes in the clear where certificates are given.
    HttpPort::at(&address, &trusting(&authority)).unwrap_err();
}

#[test]
fn a_certificate_of_version_1_is_blamed_and_not_its_key() {
    let authority = Authority::new().unwrap();
    let Signed { certificate, key } = authority.sign("client", &["a client", &"x".repeat(60)]).unwrap();
    // The version is what the twelfth byte says: 2 for v3, 0 for v1.
    let pem = fs::read_to_string(&certificate).unwrap();
    let first = pem.replacen("AwIBAg", "AwIBAA", 1);
    assert_ne!(pem, first);
    fs::write(&certificate, first).unwrap();
    let identity = Identity { certificate: &certificate, key: &key };
    let error =
        Credentials::default().with_tls(Some(&authority.certificate()), Some(identity)).unwrap_err().to_string();
    assert!(
        error.starts_with("--client-cert ") && error.contains("no X.509 v3") && error.contains("-extfile"),
        "{error}"
    );
    let foreign = authority.sign("other", &["other"]).unwrap();
    let identity = Identity { certificate: &foreign.certificate, key: &key };
    let error =
        Credentials::default().with_tls(Some(&authority.certificate()), Some(identity)).unwrap_err().to_string();
    assert!(error.starts_with("--client-key "), "{error}");
}
