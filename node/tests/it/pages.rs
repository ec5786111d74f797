use hydrant_contracts::proto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, next, register};

async fn page(server: &Server, path: &str, accept: &str) -> String {
    let mut socket = TcpStream::connect(server.agent.address()).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_need_no_token_and_tell_how_the_node_is() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let mut registered = client
        .registry
        .register_instance(register("api/a", "a-1", 60_000))
        .await
        .unwrap();
    next!(registered).unwrap().unwrap();

    let json = page(&server, "/health", "*/*").await;
    assert!(json.starts_with("HTTP/1.1 200"), "{json}");
    let body: serde_json::Value =
        serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        (&body["server"], &body["healthy"]),
        (&"one".into(), &true.into())
    );
    assert_eq!(body["engines"][0]["engine"], "embedded");
    assert_eq!(body["instances"][0]["id"], "a-1");
    assert_eq!(body["services"][0]["service"], "web");

    let html = page(&server, "/health", "text/html,application/xhtml+xml").await;
    assert!(
        html.contains("text/html") && html.contains("a-1 1.0.0"),
        "{html}"
    );

    let metrics = page(&server, "/metrics", "*/*").await;
    assert!(metrics.contains("\nhydrant_leases 1\n"), "{metrics}");
    assert!(
        metrics.contains("\nhydrant_supervised_wanted{service=\"api/web\"} 2\n"),
        "{metrics}"
    );

    let health = client.node.health(proto::HealthRequest::default()).await;
    assert!(health.unwrap().into_owned().healthy);
}
