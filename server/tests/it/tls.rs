//! TLS as callers meet it, on both ports of a server in this process: who is let in, who is not and why, and that those
//! who are not leave the others alone.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use test_support::{Authority, Signed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zbl_client::{Client, Credentials, Error, Identity, Money, Retry, pem};
use zbl_proto::v1::{RunAttackRequest, lab_service_client::LabServiceClient, run_attack_response::Step};

use crate::app::{Database, Served, until};

/// The flags of a server with this certificate.
fn flags(signed: &Signed) -> Vec<String> {
    vec![format!("--tls-cert={}", signed.certificate.display()), format!("--tls-key={}", signed.key.display())]
}

async fn serve(flags: &[String]) -> (Served, Database) {
    let database = Database::sqlite();
    let words: Vec<&str> = flags.iter().map(String::as_str).collect();
    (Served::start(&database.url, &words).await, database)
}

fn identity(signed: &Signed) -> Identity<'_> {
    Identity { certificate: &signed.certificate, key: &signed.key }
}

/// A client that trusts this authority alone, and shows a certificate, or none.
fn client(served: &Served, trusts: &Authority, shows: Option<&Signed>) -> Client {
    let credentials = Credentials::default().with_tls(Some(&trusts.certificate()), shows.map(identity)).unwrap();
    client_with(served, &credentials)
}

fn client_with(served: &Served, credentials: &Credentials) -> Client {
    Client::connect_lazy_with(&format!("https://{}", served.grpc), credentials).unwrap().with_retry(Retry::NEVER)
}

/// Opens an account and takes from it.
async fn use_it(client: &Client) -> Result<(), Error> {
    let account = client.open_account(None, Money::from_minor(1_000)).await?;
    let receipt = client.deduct(&zbl_client::Change::new(account.user_id, Money::from_minor(400))).await?;
    assert_eq!(receipt.balance, Money::from_minor(600));
    Ok(())
}

/// A connection by TLS, offering these protocols.
async fn secured(
    address: SocketAddr,
    trusts: &Authority,
    shows: Option<&Signed>,
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem::certificates(&trusts.certificate()).unwrap());
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(Signed { certificate, key }) => builder
            .with_client_auth_cert(pem::certificates(certificate).unwrap(), pem::private_key(key).unwrap())
            .unwrap(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(address.ip().to_string()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// What the HTTP port answers to a GET, by HTTP/1.1 behind TLS.
async fn get(address: SocketAddr, path: &str, trusts: &Authority, shows: Option<&Signed>) -> io::Result<String> {
    let mut stream = secured(address, trusts, shows, &["http/1.1"]).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer).await {
        // It has said all that it had to.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        read => drop(read?),
    }
    Ok(answer)
}

/// The status of a GET by HTTP/2.
async fn by_http2(stream: TlsStream<TcpStream>, uri: &str) -> u16 {
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (answer, _) = send.send_request(http::Request::get(uri).body(()).unwrap(), true).unwrap();
    answer.await.unwrap().status().as_u16()
}

fn chosen(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_speak_it_and_agree_on_a_protocol() {
    let authority = Authority::new().unwrap();
    let (served, _database) = serve(&flags(&authority.sign("server", &["127.0.0.1"]).unwrap())).await;
    use_it(&client(&served, &authority, None)).await.unwrap();
    let healthy = get(served.http, "/healthz", &authority, None).await.unwrap();
    assert!(healthy.starts_with("HTTP/1.1 200 ") && healthy.ends_with("ok"), "{healthy}");

    let both = &["h2", "http/1.1"];
    for (address, offered, expected) in [
        (served.grpc, &both[..1], "h2"),
        (served.grpc, both, "h2"),
        (served.http, both, "h2"),
        (served.http, &both[1..], "http/1.1"),
    ] {
        let stream = secured(address, &authority, None, offered).await.unwrap();
        assert_eq!(chosen(&stream), Some(expected.as_bytes()), "{offered:?}");
    }
    let stream = secured(served.http, &authority, None, both).await.unwrap();
    assert_eq!(by_http2(stream, &format!("https://{}/balance/99", served.http)).await, 404, "it is its own host");

    let refused = secured(served.grpc, &authority, None, &both[1..]).await.unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_trusted_is_not_and_the_error_says_why() {
    let [authority, other] = [(); 2].map(|()| Authority::new().unwrap());
    let expired = authority.sign_expired("expired", &["127.0.0.1"]).unwrap();
    let (served, _database) = serve(&flags(&expired)).await;
    let error = use_it(&client(&served, &authority, None)).await.unwrap_err().to_string();
    assert!(error.contains("certificate expired") && error.contains(&served.grpc.to_string()), "{error}");

    let (served, _database) = serve(&flags(&authority.sign("named", &["bank.example"]).unwrap())).await;
    let error = use_it(&client(&served, &other, None)).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = use_it(&client(&served, &authority, None)).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name") && error.contains("bank.example"), "{error}");
    let credentials = Credentials::default().with_tls(Some(&authority.certificate()), None).unwrap();
    use_it(&client_with(&served, &credentials.with_server_name("bank.example").unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_certificates_lets_in_those_of_its_authority_alone() {
    let [authority, clients] = [(); 2].map(|()| Authority::new().unwrap());
    let mut flags = flags(&authority.sign("server", &["127.0.0.1"]).unwrap());
    flags.push(format!("--tls-client-ca={}", clients.certificate().display()));
    let (served, _database) = serve(&flags).await;
    let known = clients.sign("known", &["a client"]).unwrap();
    let foreign = authority.sign("foreign", &["a client"]).unwrap();
    let late = clients.sign_expired("late", &["a client"]).unwrap();

    for (shown, named) in
        [(None, "CertificateRequired"), (Some(&foreign), "UnknownCA"), (Some(&late), "CertificateExpired")]
    {
        // The alert comes behind the handshake, and is lost where the client finds first that it cannot write any more.
        until(named, async || {
            let by_grpc = use_it(&client(&served, &authority, shown)).await.unwrap_err().to_string();
            let by_http = get(served.http, "/healthz", &authority, shown).await.unwrap_err().to_string();
            by_grpc.contains(named) && by_http.contains(named)
        })
        .await;
        use_it(&client(&served, &authority, Some(&known))).await.unwrap();
    }
    assert!(get(served.http, "/readyz", &authority, Some(&known)).await.unwrap().contains(" 200 "));
}

/// What two ends make of each other that do not speak the same.
#[tokio::test(flavor = "multi_thread")]
async fn plaintext_and_tls_do_not_mix_and_harm_nobody() {
    let authority = Authority::new().unwrap();
    let (secure, _one) = serve(&flags(&authority.sign("server", &["127.0.0.1"]).unwrap())).await;
    let (plain, _two) = serve(&[]).await;
    for address in [secure.grpc, secure.http] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
        Client::connect_lazy(&secure.grpc.to_string())
            .unwrap()
            .with_retry(Retry::NEVER)
            .strategies()
            .await
            .unwrap_err();
    }
    for address in [plain.grpc, plain.http] {
        secured(address, &authority, None, &["h2"]).await.unwrap_err();
    }
    use_it(&client(&secure, &authority, None)).await.unwrap();
    use_it(&Client::connect_lazy(&plain.grpc.to_string()).unwrap()).await.unwrap();
    assert!(get(secure.http, "/healthz", &authority, None).await.unwrap().contains(" 200 "));
}

/// The lab has neither a certificate nor a way around the tokens of others.
#[tokio::test(flavor = "multi_thread")]
async fn the_lab_attacks_its_own_service_behind_certificates_and_tokens() {
    let authority = Authority::new().unwrap();
    let mut flags = flags(&authority.sign("server", &["127.0.0.1"]).unwrap());
    flags.push(format!("--tls-client-ca={}", authority.certificate().display()));
    flags.extend(["--auth-token=service", "--lab-token=lab"].map(str::to_owned));
    let (served, _database) = serve(&flags).await;
    let known = authority.sign("known", &["a client"]).unwrap();
    let credentials = Credentials::default().with_tls(Some(&authority.certificate()), Some(identity(&known))).unwrap();
    let client = client_with(&served, &credentials.with_token("lab").unwrap());
    client.status().await.unwrap();

    let mut lab = LabServiceClient::new(channel(&client).await);
    let mut request = tonic::Request::new(RunAttackRequest {
        workers: 5,
        deductions: 3,
        strategy: "atomic".to_owned(),
        ..RunAttackRequest::default()
    });
    request.metadata_mut().insert("authorization", "Bearer lab".parse().unwrap());
    let mut steps = lab.run_attack(request).await.unwrap().into_inner();
    let mut result = None;
    while let Some(message) = steps.message().await.unwrap() {
        if let Some(Step::Result(last)) = message.step {
            result = Some(last);
        }
    }
    assert_eq!(result.unwrap().acknowledged, 15);
}

/// A channel over the connections that a client makes.
async fn channel(client: &Client) -> tonic::transport::Channel {
    let dialler = client.clone();
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let client = dialler.clone();
        async move { client.dial().await.map(hyper_util::rt::TokioIo::new) }
    });
    tonic::transport::Endpoint::from(client.uri().clone()).connect_with_connector(dial).await.unwrap()
}
