//! Credentials that a pod's ServiceAccount gives: a token in a file, exchanged for keys as clouds do it. The exchange is
//! played here, with what it must be asked; the store behind it is real, and knows no session tokens: they are empty.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use stillframe::store::{Repository, StoreError, StoreSettings};

use crate::help::{begin, id, manifest, quick};
use crate::support::certificate::self_signed;
use crate::support::s3::S3Server;

const TOKEN: &str = "header.payload.signature";

/// A server that answers each request by what `answer` makes of it, until it is dropped with the test.
struct Exchange {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Exchange {
    fn start(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let calls = Arc::clone(&asked);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut stream: Box<dyn Stream> = match &tls {
                    Some(config) => {
                        Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), socket))
                    }
                    None => Box::new(socket),
                };
                let Some(request) = read_request(&mut stream) else { continue };
                let (status, body) = match answer(&request) {
                    Some(body) => ("200 OK", body),
                    None => ("403 Forbidden", "no".to_owned()),
                };
                calls.lock().unwrap().push(request);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                let _ = stream.flush();
            }
        });
        Self { address, asked }
    }
}

/// Head and body of one request.
fn read_request(stream: &mut Box<dyn Stream>) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4096];
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&some[..count]),
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.max().unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}

fn keys(server: &S3Server) -> BTreeMap<String, String> {
    server.environment().into_iter().collect()
}

/// The environment of a pod that has no keys: only where the server is, and what its account gave it.
fn settings(server: &S3Server, given: &[(&str, &str)]) -> StoreSettings {
    let all =
        keys(server).into_iter().filter(|(name, _)| name != "AWS_ACCESS_KEY_ID" && name != "AWS_SECRET_ACCESS_KEY");
    let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    quick(StoreSettings::new(all.chain(given)))
}

async fn works(server: &S3Server, settings: StoreSettings) -> Result<(), StoreError> {
    let repository = Repository::open_with(&server.url("p").parse().unwrap(), settings, true).await?;
    repository.probe().await?;
    let id = id();
    let run = begin(&repository, &id).await;
    run.commit(&manifest(&id, run.attempt(), None)).await?;
    run.finish().await;
    assert_eq!(repository.list().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_token_is_exchanged_for_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = self_signed(folder.path(), "exchange", "IP:127.0.0.1");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let server = S3Server::start();
    let known = keys(&server);
    let exchange = Exchange::start(Some(Arc::new(config)), move |request| {
        let allowed = ["AssumeRoleWithWebIdentity", "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fbackup", TOKEN];
        allowed.iter().all(|part| request.contains(part)).then(|| {
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{}</AccessKeyId>\
                 <SecretAccessKey>{}</SecretAccessKey><SessionToken></SessionToken>\
                 <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                 </AssumeRoleWithWebIdentityResponse>",
                known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"]
            )
        })
    });
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let endpoint = format!("https://{}", exchange.address);
    let given = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup"),
        ("AWS_ENDPOINT_URL_STS", endpoint.as_str()),
        ("AWS_CA_BUNDLE", certificate.to_str().unwrap()),
    ];
    works(&server, settings(&server, &given)).await.unwrap();
    assert!(!exchange.asked.lock().unwrap().is_empty());

    std::fs::write(&token, "another account's").unwrap();
    let error = works(&server, settings(&server, &given)).await.unwrap_err();
    assert!(!error.to_string().contains("another account's"), "a token is no word for a log: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_identity_token_is_exchanged_for_keys() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start();
    let known = keys(&server);
    let exchange = Exchange::start(None, move |request| {
        request.to_ascii_lowercase().contains(&format!("authorization: {TOKEN}")).then(|| {
            serde_json::json!({
                "AccessKeyId": known["AWS_ACCESS_KEY_ID"], "SecretAccessKey": known["AWS_SECRET_ACCESS_KEY"],
                "Token": "", "Expiration": "2999-01-01T00:00:00Z",
            })
            .to_string()
        })
    });
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let uri = format!("http://{}/v1/credentials", exchange.address);
    let given = [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
    ];
    works(&server, settings(&server, &given)).await.unwrap();
    assert!(!exchange.asked.lock().unwrap().is_empty());
}
