use std::collections::BTreeMap;

use super::*;

/// Longer than any wait that a test needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// A stream of changes, read block by block.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn open(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let request = api.client.get(format!("{}{path}", api.base));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = String::new();
        Self { answer, text }
    }

    /// The fields of the next block; `None` at the end.
    async fn next(&mut self) -> Option<BTreeMap<String, String>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let fields = block.lines().filter_map(|line| line.split_once(": "));
                let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let fields = fields.collect();
                self.text = rest.to_owned();
                return Some(fields);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await;
            let chunk = chunk.expect("the next block comes").unwrap()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    async fn is_silent(&mut self) -> bool {
        let next = tokio::time::timeout(SILENCE, self.next()).await;
        next.is_err()
    }
}

/// The flags with another greeting.
fn greeting(text: &str) -> Value {
    let mut all = flags();
    all["flags"]["welcome"]["variants"]["hello"] = text.into();
    all
}

fn secret(value: u64) -> Value {
    let mut all = flags();
    all["flags"]["secret"]["variants"]["two"] = value.into();
    all
}

#[tokio::test]
async fn a_change_is_told_as_the_specification_has_it() {
    let api = Api::start().await;
    let mut events = Events::open(&api, EVENTS, &[]).await;
    let first = events.next().await.unwrap();
    assert!(first["id"].starts_with("1-"), "{first:?}");
    assert!(first["retry"].parse::<u64>().unwrap() >= 1000);
    assert!(!first.contains_key("data"), "nothing has changed yet");
    api.publish(&shop_with(2, &greeting("Hi")));
    let event = events.next().await.unwrap();
    assert_eq!(event["event"], "message");
    assert!(event["id"].starts_with("2-"), "{event:?}");
    let data: Value = serde_json::from_str(&event["data"]).unwrap();
    assert_eq!(data["type"], "refetchEvaluation");
    assert_eq!(data["lastModified"], 1_771_622_898);
    assert!(event["id"].ends_with(data["etag"].as_str().unwrap()));
}

#[tokio::test]
async fn only_what_somebody_may_see_is_told() {
    let api = Api::start().await;
    let mut anonymous = Events::open(&api, EVENTS, &[]).await;
    let mut holder = Events::open(&api, EVENTS, &[("x-api-key", CLIENT)]).await;
    anonymous.next().await.unwrap();
    holder.next().await.unwrap();
    api.publish(&shop_with(2, &secret(3)));
    assert!(holder.next().await.unwrap().contains_key("data"));
    assert!(anonymous.is_silent().await);
    // A revision of which nobody sees anything.
    let mut bundle = shop_with(3, &secret(3));
    let settings = r#"{"cors": {"origins": ["*"]}}"#.to_owned();
    let all = bundle.documents.entry(Kind::Settings).or_default();
    all.insert("settings".into(), settings);
    api.publish(&bundle);
    assert!(holder.is_silent().await);
    api.publish(&shop_with(4, &greeting("Hi")));
    assert!(anonymous.next().await.unwrap()["id"].starts_with("4-"));
    assert!(holder.next().await.unwrap()["id"].starts_with("4-"));
}

#[tokio::test]
async fn an_evaluator_counts_where_it_is_used() {
    let api = Api::start().await;
    let with = |used: &str, other: &str| {
        let mut all = flags();
        all["$evaluators"] = json!({
            "used": { "==": [{ "var": "language" }, used] },
            "other": { "==": [{ "var": "language" }, other] },
        });
        all["flags"]["welcome"]["targeting"] = json!({ "if": [{ "$ref": "used" }, "hallo"] });
        all["flags"]["secret"]["targeting"] = json!({ "if": [{ "$ref": "other" }, "two"] });
        all
    };
    api.publish(&shop_with(2, &with("de", "de")));
    let mut events = Events::open(&api, EVENTS, &[("last-event-id", "x")]).await;
    assert!(events.next().await.unwrap()["id"].starts_with("2-"));
    api.publish(&shop_with(3, &with("de", "fr")));
    assert!(events.is_silent().await);
    api.publish(&shop_with(4, &with("fr", "fr")));
    assert!(events.next().await.unwrap()["id"].starts_with("4-"));
}

#[tokio::test]
async fn who_comes_back_is_told_at_once_what_changed_meanwhile() {
    let api = Api::start().await;
    let mut events = Events::open(&api, EVENTS, &[]).await;
    let id = events.next().await.unwrap()["id"].clone();
    drop(events);
    let back = [("last-event-id", id.as_str())];
    let mut same = Events::open(&api, EVENTS, &back).await;
    let first = same.next().await.unwrap();
    assert!(!first.contains_key("data"), "nothing has changed");
    api.publish(&shop_with(2, &secret(3)));
    let mut same = Events::open(&api, EVENTS, &back).await;
    assert!(!same.next().await.unwrap().contains_key("data"));
    api.publish(&shop_with(3, &greeting("Hi")));
    let mut behind = Events::open(&api, EVENTS, &back).await;
    let first = behind.next().await.unwrap();
    assert!(first.contains_key("data"), "{first:?}");
    assert!(behind.is_silent().await, "once");
    // Who comes for the first time just after a change may have an answer from before it.
    let mut new = Events::open(&api, EVENTS, &[]).await;
    assert!(new.next().await.unwrap().contains_key("data"));
}

#[tokio::test]
async fn a_ticket_stands_for_its_key_until_that_is_revoked() {
    let api = Api::start().await;
    let answer = api.ask(ALL, json!({}), &[("x-api-key", CLIENT)]).await;
    let body: Value = answer.json().await.unwrap();
    let path = body["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap();
    assert!(!path.contains(CLIENT));
    let path = path.strip_prefix("/api/mobile").unwrap();
    let mut events = Events::open(&api, path, &[]).await;
    events.next().await.unwrap();
    api.publish(&shop_with(2, &secret(3)));
    assert!(events.next().await.unwrap().contains_key("data"));
    api.publish(&revision(3, &[(Kind::Flags, "shop", flags())]));
    assert_eq!(events.next().await, None, "it ends with its key");
    for path in [
        path,
        "/ofrep/v1/events?ticket=",
        "/ofrep/v1/events?ticket=00",
    ] {
        let url = format!("{}{path}", api.base);
        assert_eq!(api.client.get(url).send().await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn steps_that_nobody_waited_for_are_told_as_one() {
    let api = Api::start().await;
    let mut events = Events::open(&api, EVENTS, &[]).await;
    events.next().await.unwrap();
    for number in 2..=200 {
        api.publish(&shop_with(number, &greeting(&number.to_string())));
    }
    let mut told = 0;
    while let Ok(Some(event)) = tokio::time::timeout(SILENCE, events.next()).await {
        told += 1;
        if event["id"].starts_with("200-") {
            break;
        }
    }
    println!("199 revisions in {told} events");
    assert!((1..199).contains(&told));
    assert!(events.is_silent().await);
}

#[tokio::test]
async fn streams_are_bounded_and_a_seat_is_free_when_its_client_leaves() {
    let api = Api::empty().await;
    let settings = json!({ "streams": { "most": 4, "mostPerKey": 2, "mostPerAddress": 3 } });
    api.publish(&revision(
        1,
        &[
            (Kind::Settings, "settings", settings),
            (Kind::Key, "web", key(CLIENT, json!({}))),
        ],
    ));
    let holder = [("x-api-key", CLIENT)];
    let status = async |headers: &[(&str, &str)]| {
        let request = api.client.get(format!("{}{EVENTS}", api.base));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let answer = request.send().await.unwrap();
        let wait = answer.headers().get("retry-after").cloned();
        (
            answer.status().as_u16(),
            wait.map(|wait| wait.to_str().unwrap().to_owned()),
        )
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(Events::open(&api, EVENTS, &holder).await);
    }
    assert_eq!(status(&holder).await, (429, Some("30".into())));
    for _ in 0..2 {
        open.push(Events::open(&api, EVENTS, &[]).await);
    }
    assert_eq!(
        status(&[]).await,
        (503, Some("30".into())),
        "the process is full"
    );
    drop(open.pop());
    let end = tokio::time::Instant::now() + PATIENCE;
    while status(&[]).await.0 != 200 {
        assert!(
            tokio::time::Instant::now() < end,
            "the seat is not free again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn streams_end_when_the_service_stops_and_later_ones_at_once() {
    let mut api = Api::start().await;
    let mut events = Events::open(&api, EVENTS, &[]).await;
    events.next().await.unwrap();
    drop(api.changes.take());
    assert_eq!(events.next().await, None);
    // 200 and an end: at an error a browser would not come back.
    let mut late = Events::open(&api, EVENTS, &[]).await;
    assert!(late.next().await.unwrap().contains_key("retry"));
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn streams_end_when_their_instance_is_drained() {
    let api = Api::start().await;
    let mut events = Events::open(&api, EVENTS, &[]).await;
    events.next().await.unwrap();
    api.leaving.begin();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn streams_can_be_left_out() {
    let api = Api::start().await;
    let settings = json!({ "streams": { "offered": false } });
    api.publish(&revision(2, &[(Kind::Settings, "settings", settings)]));
    let body: Value = api.ask(ALL, json!({}), &[]).await.json().await.unwrap();
    assert_eq!(body, json!({ "flags": [] }));
}
