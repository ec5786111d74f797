use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::delivery::facts::tests::task;
use crate::forms::{Forms, Place};

/// Delivers one submission to a consumer with this definition.
async fn deliver(definition: &str) -> Result<Done, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submissions.toml");
    std::fs::write(folder.path().join("token"), "canary\n").unwrap();
    let body = r#"{"number": "{id}", "who": {"name": "{fields/name}"}, "note": "of {store}"}"#;
    std::fs::write(folder.path().join("body.json"), body).unwrap();
    std::fs::write(
        &path,
        format!("[consumers.shop]\nkind = \"rest\"\n{definition}"),
    )
    .unwrap();
    let forms = Forms::load(&path, None).unwrap();
    let consumer = forms.consumer("shop").unwrap();
    let Place::Rest(rest) = &consumer.place else {
        panic!("it is one");
    };
    let courier = RestCourier::new(rest).unwrap();
    courier
        .deliver(rest, &task(r#"{"name": "Ada", "n": 1.50}"#))
        .await
}

/// A consumer that answers with this, and what it was sent.
async fn consumer(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::clone(&seen);
    let answer = async move |request: Request| {
        let (head, body_sent) = request.into_parts();
        let bytes = axum::body::to_bytes(body_sent, 1 << 20).await.unwrap();
        let name = |name: &str| {
            let value = head
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        let line = format!(
            "{} {} {} {} {}",
            head.method,
            head.uri,
            name("idempotency-key"),
            name("authorization"),
            String::from_utf8_lossy(&bytes)
        );
        sent.lock().unwrap().push(line);
        let headers: axum::http::HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>>()
            .into_iter()
            .collect();
        (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (url, seen)
}

#[tokio::test]
async fn a_consumer_gets_the_key_who_sends_and_what_it_asked_for() {
    let (url, seen) = consumer(201, &[], r#"{"order": {"id": 77}}"#).await;
    let definition = format!(
        "url = \"{url}/v1/{{store}}/orders?x=1\"\nmethod = \"PUT\"\nbody = \"body.json\"\n\
         bearer = {{ file = \"token\" }}\nreference = \"/order/id\""
    );
    let done = deliver(&definition).await.unwrap();
    assert_eq!(done.reference.as_deref(), Some("77"));
    assert_eq!(done.evidence, json!({ "status": 201 }));
    let id = task("{}").id;
    let body = format!(r#"{{"note":"of 7/../\"x\"","number":"{id}","who":{{"name":"Ada"}}}}"#);
    let expected = format!("PUT /v1/7%2F..%2F%22x%22/orders?x=1 {id} Bearer canary {body}");
    assert_eq!(*seen.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn each_answer_has_its_meaning() {
    let far = "reference = \"/reference\"\nretry = [404]\nrefusals = [500]\n\
               already = [{ status = 409, reference = \"/existing\" }]";
    for (status, headers, body, expected) in [
        (200, &[][..], r#"{"reference": "R-1"}"#, Ok("R-1")),
        (409, &[], r#"{"existing": "R-0"}"#, Ok("R-0")),
        (409, &[], "{}", Err((Trouble::Refused, None))),
        (200, &[], "garbage", Err((Trouble::Failing, None))),
        (
            200,
            &[],
            r#"{"reference": {}}"#,
            Err((Trouble::Failing, None)),
        ),
        (
            200,
            &[],
            "{\"reference\": \"a\\nb\"}",
            Err((Trouble::Failing, None)),
        ),
        (422, &[], "", Err((Trouble::Refused, None))),
        (404, &[], "", Err((Trouble::Failing, None))),
        (408, &[], "", Err((Trouble::Failing, None))),
        (500, &[], "", Err((Trouble::Refused, None))),
        (501, &[], "", Err((Trouble::Failing, None))),
        (401, &[], "", Err((Trouble::Away, None))),
        (
            429,
            &[("retry-after", "7")],
            "",
            Err((Trouble::Away, Some(7))),
        ),
        (
            503,
            &[("retry-after", "soon")],
            "",
            Err((Trouble::Away, None)),
        ),
        (
            302,
            &[("location", "http://127.0.0.1:1/")],
            "",
            Err((Trouble::Refused, None)),
        ),
    ] {
        let (url, _) = consumer(status, headers, body).await;
        let ended = deliver(&format!("url = \"{url}/\"\n{far}")).await;
        let ended = ended.map(|done| done.reference.unwrap_or_default());
        let ended = ended.map_err(|failure| {
            (
                failure.trouble,
                failure.retry_after.map(|time| time.as_secs()),
            )
        });
        assert_eq!(ended, expected.map(str::to_owned), "{status} {body}");
    }
}

#[tokio::test]
async fn a_consumer_that_is_away_slow_endless_or_breaks_off_is_told_apart_from_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/secret?token=canary",
        listener.local_addr().unwrap()
    );
    let mend = "reference = \"/reference\"\ntimeout = \"500ms\"";
    let definition = format!("url = \"{url}\"\n{mend}");
    tokio::spawn(async move {
        for round in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n{\"refer";
                match round {
                    0 => tokio::time::sleep(Duration::from_secs(60)).await,
                    1 => {}
                    2 => drop(stream.write_all(half).await),
                    _ => {
                        let _ = stream.write_all(half).await;
                        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                    }
                }
            });
        }
    });
    for (trouble, part) in [
        (Trouble::Failing, "in time"),
        (Trouble::Failing, "broke"),
        (Trouble::Failing, "broke"),
        (Trouble::Failing, "64 kB"),
    ] {
        let failure = deliver(&definition).await.unwrap_err();
        assert_eq!(failure.trouble, trouble, "{failure:?}");
        assert!(failure.reason.contains(part), "{failure:?}");
        assert!(!failure.reason.contains("canary"), "{failure:?}");
    }
    let away = format!("url = \"http://127.0.0.1:1/\"\n{mend}");
    assert_eq!(deliver(&away).await.unwrap_err().trouble, Trouble::Away);
}
