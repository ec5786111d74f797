use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a server does with a request.
#[derive(Clone)]
enum Step {
    Say(Vec<u8>),
    Wait(Duration),
    /// Says the same again and again.
    Drip(Vec<u8>, Duration),
    Reset,
}

fn say(text: impl AsRef<[u8]>) -> Step {
    Step::Say(text.as_ref().to_vec())
}

fn ok(head: &str, body: impl AsRef<[u8]>) -> Vec<Step> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n",
        body.len()
    );
    vec![say(head), say(body)]
}

fn redirect(place: &str) -> Vec<Step> {
    vec![say(format!(
        "HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    ))]
}

/// A server on loopback that does what a test says, also what no server may.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                tokio::spawn(async move {
                    let _ = serve(stream, &*answer, &requests).await;
                });
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Resettable,
    answer: &(dyn Fn(&str) -> Vec<Step> + Send + Sync),
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(head.clone());
    for step in answer(&head) {
        match step {
            Step::Say(bytes) => stream.write_all(&bytes).await?,
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Drip(bytes, time) => loop {
                stream.write_all(&bytes).await?;
                tokio::time::sleep(time).await;
            },
            Step::Reset => stream.reset(),
        }
    }
    stream.shutdown().await
}

trait Resettable {
    fn reset(&self) {}
}

impl Resettable for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl Resettable for tokio_rustls::server::TlsStream<TcpStream> {}

/// Names that a test decides about, one answer after the other; the last one stays.
struct Told {
    answers: Vec<IpAddr>,
    asked: AtomicUsize,
}

impl Told {
    fn new(answers: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            answers: answers.iter().map(|text| text.parse().unwrap()).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait::async_trait]
impl Names for Told {
    async fn addresses(&self, _host: &str) -> std::io::Result<Vec<IpAddr>> {
        let at = self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(vec![self.answers[at.min(self.answers.len() - 1)]])
    }
}

fn source_in(folder: &Path, rest: &str) -> Sources {
    let path = folder.join("sources.toml");
    let text = format!(
        "[[source]]\nname = \"a\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nmax_size = \"1KB\"\n{rest}"
    );
    std::fs::write(&path, text).unwrap();
    Sources::load(&path, None).unwrap()
}

fn somebody() -> Asker {
    Asker {
        instance: "mobile-1".into(),
        node: "http://127.0.0.1:1".into(),
        token: None,
    }
}

async fn fetch(rest: &str, names: Arc<dyn Names>) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let sources = source_in(folder.path(), rest);
    let fetcher = Fetcher::with_names(&sources, somebody(), names).unwrap();
    fetcher.fetch(&sources.list()[0], None).await
}

async fn fetch_url(url: &str) -> Outcome {
    fetch(&format!("url = \"{url}\""), Arc::new(SystemNames)).await
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn value(outcome: Outcome) -> (String, Validator) {
    match outcome {
        Outcome::Changed { value, validator } => (value.get().to_owned(), validator),
        other => panic!("{other:?}"),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(body).unwrap();
    packer.finish().unwrap()
}

/// Servers that are wrong in one way each, and what is told of it.
fn faults() -> Vec<(&'static str, Vec<Step>, &'static str)> {
    let head = |text: &str| say(format!("HTTP/1.1 {text}\r\n\r\n"));
    let json = "Content-Type: application/json\r\n";
    vec![
        (
            "silent",
            vec![Step::Wait(Duration::from_secs(9))],
            "no answer in 500 ms",
        ),
        (
            "drips",
            vec![
                head("200 OK\r\nContent-Length: 1000"),
                Step::Drip(b" ".to_vec(), Duration::from_millis(20)),
            ],
            "no answer in 500 ms",
        ),
        (
            "drips its head",
            vec![
                say("HTTP/1.1 200 OK\r\nA: "),
                Step::Drip(b"a".to_vec(), Duration::from_millis(20)),
            ],
            "no answer in 500 ms",
        ),
        (
            "promises more than it has",
            vec![head("200 OK\r\nContent-Length: 100"), say("{\"a\": 1}")],
            "end of file",
        ),
        (
            "has more than it promises",
            vec![head("200 OK\r\nContent-Length: 7"), say("{\"a\": [1, 2]}")],
            "not JSON",
        ),
        (
            "promises two lengths",
            vec![
                head("200 OK\r\nContent-Length: 2\r\nContent-Length: 3"),
                say("{}"),
            ],
            "",
        ),
        (
            "promises too much",
            vec![head("200 OK\r\nContent-Length: 99999999999")],
            "more than 1024 bytes",
        ),
        (
            "never ends",
            vec![head("200 OK"), Step::Drip(vec![b' '; 500], Duration::ZERO)],
            "more than 1024 bytes",
        ),
        (
            "chunks that are none",
            vec![
                head("200 OK\r\nTransfer-Encoding: chunked"),
                say("zz\r\n{}\r\n"),
            ],
            "",
        ),
        (
            "breaks off",
            vec![
                head("200 OK\r\nContent-Length: 8"),
                say("{\"a\""),
                Step::Wait(Duration::from_millis(50)),
                Step::Reset,
            ],
            "",
        ),
        (
            "speaks no HTTP",
            vec![say("\x00\x01\x02garbage\r\n\r\n")],
            "",
        ),
        (
            "a page",
            ok("Content-Type: text/html\r\n", "<html>log in</html>"),
            "not JSON",
        ),
        ("nothing", ok(json, ""), "not JSON"),
        ("no UTF-8", ok(json, b"{\"a\": \"\xff\xfe\"}"), "UTF-8"),
        ("nested", ok(json, "[".repeat(900)), "nested"),
        (
            "says gzip",
            ok("Content-Encoding: gzip\r\n", "{\"a\": 1}"),
            "content-encoding",
        ),
        (
            "says exotic",
            ok("Content-Encoding: exotic\r\n", "{}"),
            "exotic",
        ),
        (
            "a bomb",
            ok("Content-Encoding: gzip\r\n", gzip(&[b' '; 900_000])),
            "more than 1024 bytes",
        ),
        ("204", vec![head("204 No Content")], "204"),
        ("304", vec![head("304 Not Modified")], "304"),
        (
            "206",
            ok(json, "{}").into_iter().map(partial).collect(),
            "206",
        ),
        (
            "401",
            vec![head("401 Unauthorized\r\nContent-Length: 0")],
            "401",
        ),
        (
            "500",
            vec![head("500 Oops\r\nContent-Length: 2"), say("{}")],
            "500",
        ),
        (
            "in circles",
            redirect("/again"),
            "redirects more than 3 times",
        ),
        ("to nowhere", redirect("http://"), "no readable place"),
        (
            "to a file",
            redirect("file:///etc/passwd"),
            "from http to file",
        ),
    ]
}

fn partial(step: Step) -> Step {
    match step {
        Step::Say(bytes) => {
            let text = String::from_utf8(bytes).unwrap();
            say(text.replace("200 OK", "206 Partial Content"))
        }
        other => other,
    }
}

#[tokio::test]
async fn whatever_a_server_does_wrong_is_told_in_time_and_how_to_mend_it() {
    for (name, steps, part) in faults() {
        let server = Server::start(move |_| steps.clone()).await;
        let began = Instant::now();
        let failure = failure(fetch_url(&server.url()).await);
        println!("{name}: {} ({})", failure.reason, failure.mend);
        assert!(failure.reason.contains(part), "{name}: {failure:?}");
        assert!(
            !failure.reason.is_empty() && !failure.mend.is_empty(),
            "{name}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", gone.local_addr().unwrap());
    drop(gone);
    let failure = failure(fetch_url(&url).await);
    assert!(failure.reason.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused_before_anything_is_sent() {
    let victim = Server::start(|_| ok("", "\"secret\"")).await;
    let port = victim.address.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "LocalHost",
        "name:pass@127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ] {
        let place = format!("http://{host}:{port}/");
        let server = Server::start(move |_| redirect(&place)).await;
        let failure = failure(fetch_url(&server.url()).await);
        assert!(
            failure.reason.contains("private address"),
            "{host}: {failure:?}"
        );
        assert!(failure.mend.contains("allow_private_redirects"), "{host}");
    }
    assert_eq!(victim.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_means_another_address_when_it_is_asked_again_changes_nothing() {
    let victim = Server::start(|_| ok("", "\"secret\"")).await;
    let place = format!("http://rebinding.test:{}/", victim.address.port());
    let server = Server::start(move |_| redirect(&place)).await;
    // The first answer may be asked; nobody is there. The second one is the victim.
    let names = Told::new(&["192.31.196.1", "127.0.0.1"]);
    let rest = format!("url = \"{}\"", server.url());
    failure(fetch(&rest, Arc::clone(&names) as Arc<dyn Names>).await);
    assert_eq!(names.asked.load(Ordering::Relaxed), 1, "looked up once");
    assert_eq!(victim.seen(), Vec::<String>::new());
    // And the other way round.
    let names = Told::new(&["127.0.0.1", "192.31.196.1"]);
    let failure = failure(fetch(&rest, names).await);
    assert!(
        failure
            .reason
            .contains("rebinding.test has the private address 127.0.0.1")
    );
    assert_eq!(victim.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_with_the_credentials() {
    let server = Server::start(|head| match head.starts_with("GET /new ") {
        true => ok("", "[1]"),
        false => redirect("/new"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "canary\n").unwrap();
    let rest = format!(
        "url = \"{}\"\nbearer = {{ file = \"token\" }}",
        server.url()
    );
    let sources = source_in(folder.path(), &rest);
    let fetcher = Fetcher::with_names(&sources, somebody(), Arc::new(SystemNames)).unwrap();
    let outcome = fetcher.fetch(&sources.list()[0], None).await;
    assert_eq!(value(outcome).0, "[1]");
    for request in server.seen() {
        assert!(
            request.contains("authorization: Bearer canary"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let other = Server::start(|_| ok("", "[2]")).await;
    let place = other.url();
    let server = Server::start(move |_| redirect(&place)).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "canary").unwrap();
    let rest = format!(
        "url = \"{}\"\nallow_private_redirects = true\nbearer = {{ file = \"key\" }}\n\
         headers = {{ x-api-key = {{ file = \"key\" }}, x-plain = \"canary\" }}",
        server.url()
    );
    let sources = source_in(folder.path(), &rest);
    let fetcher = Fetcher::with_names(&sources, somebody(), Arc::new(SystemNames)).unwrap();
    let outcome = fetcher.fetch(&sources.list()[0], None).await;
    assert_eq!(value(outcome).0, "[2]");
    assert_eq!(server.seen()[0].matches("canary").count(), 3);
    assert!(!other.seen()[0].contains("canary"), "{:?}", other.seen());
    assert!(!other.seen()[0].contains("referer"), "{:?}", other.seen());
}

#[tokio::test]
async fn it_asks_for_changes_only_and_for_all_when_the_definition_changes() {
    let server = Server::start(|head| match head.contains("if-none-match: \"1\"") {
        true => vec![say("HTTP/1.1 304 Not Modified\r\n\r\n")],
        false => ok("ETag: \"1\"\r\n", "{\"a\": [1], \"b\": [2]}"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut known: Option<Validator> = None;
    for (pointer, expected) in [("/a", Some("[1]")), ("/a", None), ("/b", Some("[2]"))] {
        let rest = format!("url = \"{}\"\npointer = \"{pointer}\"", server.url());
        let sources = source_in(folder.path(), &rest);
        let fetcher = Fetcher::with_names(&sources, somebody(), Arc::new(SystemNames)).unwrap();
        let outcome = fetcher.fetch(&sources.list()[0], known.as_ref()).await;
        match expected {
            None => assert!(matches!(outcome, Outcome::Unchanged), "{outcome:?}"),
            Some(expected) => {
                let (value, validator) = value(outcome);
                assert_eq!(value, expected);
                known = Some(validator);
            }
        }
    }
    assert!(server.seen()[0].contains("hydrant-instance: mobile-1"));
}

#[tokio::test]
async fn files_are_read_within_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let sources = source_in(folder.path(), "file = \"a.json\"");
    let fetcher = Fetcher::with_names(&sources, somebody(), Arc::new(SystemNames)).unwrap();
    let read = async || fetcher.fetch(&sources.list()[0], None).await;
    assert!(failure(read().await).reason.contains("a.json"));
    std::fs::write(&path, "[ 1 ]").unwrap();
    assert_eq!(value(read().await).0, "[1]");
    std::fs::write(&path, " ".repeat(1025)).unwrap();
    assert!(failure(read().await).reason.contains("1024 bytes"));
}

/// A server behind TLS, and the file of the authority that vouches for it.
async fn tls_server(
    folder: &Path,
    answer: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
) -> SocketAddr {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = hydrant_harness::Certificates::make(folder, &[]);
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificates.server_pem())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.server_key()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = serve(stream, &*answer, &Mutex::default()).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn https_needs_somebody_who_vouches_and_never_becomes_http() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Server::start(|_| ok("", "[3]")).await;
    let place = plain.url();
    let address = tls_server(folder.path(), move |head| match head.contains("/down") {
        true => redirect(&place),
        false => ok("", "[1]"),
    })
    .await;
    let ask = async |path: &str, rest: &str| {
        let url = format!(
            "url = \"https://localhost:{}{path}\"\n{rest}",
            address.port()
        );
        let sources = source_in(folder.path(), &url);
        let fetcher = Fetcher::with_names(&sources, somebody(), Told::new(&["127.0.0.1"])).unwrap();
        fetcher.fetch(&sources.list()[0], None).await
    };
    assert_eq!(value(ask("/", "ca = \"ca.pem\"").await).0, "[1]");
    let unknown = failure(ask("/", "").await);
    assert!(unknown.reason.contains("certificate"), "{unknown:?}");
    assert!(unknown.mend.contains("`ca`"), "{unknown:?}");
    let rest = "ca = \"ca.pem\"\nallow_private_redirects = true";
    let down = failure(ask("/down", rest).await);
    assert!(down.reason.contains("from https to http"), "{down:?}");
    assert_eq!(plain.seen(), Vec::<String>::new());
}
