use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Result, wrong};

/// How often a server that starts is asked.
const STARTING: Duration = Duration::from_millis(50);
/// How often one that runs is.
const RUNNING: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// After so long a start is said to be slow, and why.
const SLOW: Duration = Duration::from_secs(10);
/// So many bad answers in a row count.
const FAILURES: u32 = 3;

/// Asks the server how it is: by its health path if it has one, else by its port.
#[derive(Debug)]
pub(super) struct Probe {
    address: SocketAddr,
    health: Option<(reqwest::Client, reqwest::Url)>,
}

impl Probe {
    pub(super) fn new(port: u16, health: Option<String>) -> Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let health = health.map(|path| {
            let url = reqwest::Url::parse(&format!("http://{address}{path}"));
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(ANSWER)
                .build();
            match (client, url) {
                (Ok(client), Ok(url)) => Ok((client, url)),
                _ => Err(wrong(
                    "bad_health_path",
                    format!("`{path}` is not a path"),
                    "write it as --health /healthz",
                )),
            }
        });
        Ok(Self {
            address,
            health: health.transpose()?,
        })
    }

    /// Waits until the server is well for the first time. `slow` is told, once, why it is not.
    pub(super) async fn first_good(&self, slow: impl Fn(&str)) {
        let started = Instant::now();
        let mut told = false;
        while let Err(why) = self.ask().await {
            if !told && started.elapsed() >= SLOW {
                slow(&why);
                told = true;
            }
            sleep(STARTING).await;
        }
    }

    /// Waits until the server is not well, and tells why. Without a health path it never is: a
    /// server that ends is seen otherwise.
    pub(super) async fn bad(&self) -> String {
        if self.health.is_none() {
            return std::future::pending().await;
        }
        let mut failures = 0;
        loop {
            sleep(RUNNING).await;
            match self.ask().await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures == FAILURES {
                        return format!("{why}, {failures} times");
                    }
                }
            }
        }
    }

    /// Waits until the server is well again.
    pub(super) async fn good(&self) {
        while self.ask().await.is_err() {
            sleep(RUNNING).await;
        }
    }

    async fn ask(&self) -> std::result::Result<(), String> {
        match &self.health {
            Some((client, url)) => ask_path(client, url).await,
            None => self.ask_port().await,
        }
    }

    async fn ask_port(&self) -> std::result::Result<(), String> {
        match timeout(ANSWER, TcpStream::connect(self.address)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!(
                "nothing listens on {}; the server has to take its port from PORT",
                self.address
            )),
        }
    }
}

async fn ask_path(client: &reqwest::Client, url: &reqwest::Url) -> std::result::Result<(), String> {
    let answer = client.get(url.clone()).send().await;
    let path = url.path();
    match answer.map(|answer| answer.status()) {
        Ok(status) if status.is_success() || status.is_redirection() => Ok(()),
        Ok(status) => Err(format!("{path} answers {}", status.as_u16())),
        Err(error) if error.is_timeout() => Err(format!("{path} does not answer in 2 s")),
        Err(_) => Err(format!(
            "{path} does not answer on port {}",
            url.port().unwrap_or(0)
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each connection with the next status.
    async fn server(statuses: &'static [u16]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_health_path_is_well_with_2xx_and_3xx() {
        let port = server(&[200, 302, 404, 500]).await;
        let probe = Probe::new(port, Some("/ok".into())).unwrap();
        assert_eq!(probe.ask().await, Ok(()));
        assert_eq!(probe.ask().await, Ok(()));
        assert_eq!(probe.ask().await, Err("/ok answers 404".into()));
        assert_eq!(probe.ask().await, Err("/ok answers 500".into()));
        let why = probe.ask().await.unwrap_err();
        assert_eq!(why, format!("/ok does not answer on port {port}"));
    }

    #[tokio::test]
    async fn a_port_is_well_when_it_accepts() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = Probe::new(port, None).unwrap();
        assert_eq!(probe.ask().await, Ok(()));
        drop(listener);
        assert!(probe.ask().await.unwrap_err().contains("PORT"));
    }
}
