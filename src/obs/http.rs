//! The page that probes and Prometheus read: `/healthz`, `/readyz`, `/metrics`. Nothing else, and nothing secret.
//!
//! ```text
//!   accept (at most MOST at once) ─► one request after another ─► Pages ─► text
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once. Probes and one or two scrapers need a few.
const MOST: usize = 32;
/// How long somebody may take to say what he wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be taken, as when no file descriptors are left.
const PAUSE: Duration = Duration::from_millis(200);

/// What is told.
pub trait Pages: Send + Sync + 'static {
    /// Why the process should be started anew, if it should.
    fn health(&self) -> Result<(), String>;
    /// Why the process cannot do its work now, if it cannot.
    fn readiness(&self) -> Result<(), String>;
    /// All metrics.
    fn metrics(&self) -> String;
}

/// Listens at an address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind(address).await
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, pages: Arc<impl Pages>, stop: CancellationToken) {
    let free = Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &free) => accepted,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (pages, stop) = (Arc::clone(&pages), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &*pages);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                served = connection => if let Err(error) = served {
                    tracing::debug!(%error, "a connection to the metrics ended badly");
                },
            }
        });
    }
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot take a connection to the metrics");
            None
        }
    }
}

fn answer(method: &Method, path: &str, pages: &impl Pages) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    let state = |state: Result<(), String>| match state {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    };
    match path {
        "/healthz" => state(pages.health()),
        "/readyz" => state(pages.readiness()),
        "/metrics" => text(StatusCode::OK, pages.metrics()),
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Sick;

    impl Pages for Sick {
        fn health(&self) -> Result<(), String> {
            Ok(())
        }
        fn readiness(&self) -> Result<(), String> {
            Err("no API server".to_owned())
        }
        fn metrics(&self) -> String {
            "up 1\n".to_owned()
        }
    }

    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn three_pages_and_no_more() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::new(Sick), stop.clone()));
        for (line, status, word) in [
            ("GET /healthz", "200", "ok"),
            ("GET /readyz", "503", "no API server"),
            ("GET /metrics", "200", "up 1"),
            ("GET /secrets", "404", "/metrics"),
            ("POST /metrics", "405", "only GET"),
        ] {
            let said = ask(address, line).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")) && said.contains(word), "{line}: {said}");
        }
        stop.cancel();
        server.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
    }
}
