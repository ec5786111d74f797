use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn one_flag_is_answered_as_the_specification_has_it() {
    let api = Api::start().await;
    let shop = json!({ "public": true, "team": "shop" });
    for (key, expected) in [
        (
            "sale",
            json!({ "key": "sale", "value": true, "reason": "STATIC", "variant": "on",
                    "metadata": { "public": true, "team": "shop", "owner": "ada" } }),
        ),
        (
            "welcome",
            json!({ "key": "welcome", "value": "Hello", "reason": "DEFAULT", "variant": "hello",
                    "metadata": shop }),
        ),
        (
            "ratio",
            json!({ "key": "ratio", "value": 0.5, "reason": "STATIC", "variant": "half",
                    "metadata": shop }),
        ),
        (
            "limits",
            json!({ "key": "limits", "value": { "items": 5, "tags": ["a"] }, "reason": "STATIC",
                    "variant": "small", "metadata": shop }),
        ),
        (
            "gone",
            json!({ "key": "gone", "reason": "DISABLED", "metadata": shop }),
        ),
        (
            "yours",
            json!({ "key": "yours", "reason": "DEFAULT", "metadata": shop }),
        ),
    ] {
        assert_eq!(api.one(key, &[]).await, (200, expected));
    }
    let german = json!({ "targetingKey": "ada", "language": "de" });
    let answer = api.ask(&format!("{ALL}/welcome"), german, &[]).await;
    assert_eq!(answer.headers()["hydrant-revision"], "1");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["value"], "Hallo");
    assert_eq!(body["reason"], "TARGETING_MATCH");
}

#[tokio::test]
async fn a_flag_that_is_not_there_is_404_with_its_key() {
    let api = Api::start().await;
    for key in ["nothing", "with/slash", "%C3%BC", "a%20b"] {
        let (status, body) = api.one(key, &[]).await;
        let decoded = key.replace("%C3%BC", "ü").replace("%20", " ");
        assert_eq!(status, 404);
        assert_eq!(body["key"], decoded);
        assert_eq!(body["errorCode"], "FLAG_NOT_FOUND");
        assert!(body["errorDetails"].as_str().unwrap().contains(&decoded));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_in_both_calls() {
    let api = Api::start().await;
    let large = format!(r#"{{"context": {{"a": "{}"}}}}"#, "x".repeat(70_000));
    for (kind, body, status, code) in [
        ("application/json", "", 400, "PARSE_ERROR"),
        ("application/json", "{", 400, "PARSE_ERROR"),
        ("application/json", "[]", 400, "INVALID_CONTEXT"),
        (
            "application/json",
            r#"{"context": 7}"#,
            400,
            "INVALID_CONTEXT",
        ),
        (
            "application/json",
            r#"{"context": {"targetingKey": 7}}"#,
            400,
            "INVALID_CONTEXT",
        ),
        ("application/json", large.as_str(), 413, "PARSE_ERROR"),
        (
            "application/x-www-form-urlencoded",
            "{}",
            415,
            "PARSE_ERROR",
        ),
        ("text/plain", "{}", 415, "PARSE_ERROR"),
        ("application/json; charset=utf-16", "{}", 415, "PARSE_ERROR"),
    ] {
        for path in [ALL.to_owned(), format!("{ALL}/sale")] {
            let request = api.client.post(format!("{}{path}", api.base));
            let request = request.header("content-type", kind).body(body.to_owned());
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status, "{kind} {path}");
            assert_eq!(answer.headers()["content-type"], "application/json");
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["errorCode"], code, "{answer}");
            assert!(answer["errorDetails"].is_string());
            assert_eq!(answer.get("key").is_some(), path != ALL, "{answer}");
        }
    }
}

#[tokio::test]
async fn other_methods_and_compressed_bodies_are_refused_and_a_missing_kind_is_json() {
    let api = Api::start().await;
    for path in [ALL.to_owned(), format!("{ALL}/sale")] {
        let url = format!("{}{path}", api.base);
        let answer = api.client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()["allow"], "POST, OPTIONS");
        let request = api.post(&path).header("content-encoding", "gzip");
        let answer = request.body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 415);
        assert_eq!(answer.headers()["accept-encoding"], "identity");
        let answer = api.client.post(&url).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn before_the_first_revision_clients_are_told_to_come_back() {
    let api = Api::empty().await;
    for path in [ALL.to_owned(), format!("{ALL}/sale")] {
        // Nobody's key is known yet: 401 would send clients away for good.
        let answer = api
            .ask(&path, json!({}), &[("authorization", "Bearer hyk_client")])
            .await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        let body: Value = answer.json().await.unwrap();
        assert!(body["errorDetails"].is_string(), "{body}");
        assert!(body.get("errorCode").is_none());
    }
}

#[tokio::test]
async fn all_flags_are_answered_once_and_then_with_304() {
    let api = Api::start().await;
    let context = json!({ "targetingKey": "ada" });
    let first = api.ask(ALL, context.clone(), &[]).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["cache-control"], "private, no-cache");
    assert_eq!(first.headers()["hydrant-revision"], "1");
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let body: Value = first.json().await.unwrap();
    let flags = body["flags"].as_array().unwrap();
    let keys: Vec<&str> = flags
        .iter()
        .map(|flag| flag["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        ["gone", "limits", "ratio", "sale", "welcome", "yours"]
    );
    assert_eq!(
        body["eventStreams"],
        json!([{
            "type": "sse",
            "endpoint": { "requestUri": "/api/mobile/ofrep/v1/events" },
            "inactivityDelaySec": 120,
        }])
    );
    let bare = etag.trim_matches('"');
    for known in [
        etag.clone(),
        bare.to_owned(),
        format!("W/{etag}"),
        format!("W/{bare}"),
        format!("\"other\", {etag}"),
        "*".to_owned(),
    ] {
        let again = api
            .ask(ALL, context.clone(), &[("if-none-match", &known)])
            .await;
        assert_eq!(again.status(), 304, "{known}");
        assert_eq!(again.headers()["etag"], etag.as_str());
        assert_eq!(again.headers()["hydrant-revision"], "1");
        assert!(again.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_answer_comes_in_the_coding_that_its_client_takes() {
    let api = Api::start().await;
    let plain = api.ask(ALL, json!({}), &[]).await;
    let strong = plain.headers()["etag"].to_str().unwrap().to_owned();
    let plain = plain.bytes().await.unwrap();
    for coding in ["zstd", "br", "gzip"] {
        let answer = api
            .ask(ALL, json!({}), &[("accept-encoding", coding)])
            .await;
        assert_eq!(answer.headers()["content-encoding"], coding);
        assert_eq!(answer.headers()["vary"], "accept-encoding");
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(etag, format!("W/{strong}"));
        assert!(answer.bytes().await.unwrap().len() < plain.len());
        let headers = [
            ("accept-encoding", coding),
            ("if-none-match", etag.as_str()),
        ];
        let again = api.ask(ALL, json!({}), &headers).await;
        assert_eq!(again.status(), 304);
        assert!(!again.headers().contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn what_a_stream_told_never_makes_an_answer_304() {
    let api = Api::start().await;
    let first = api.ask(ALL, json!({}), &[]).await;
    let etag = first.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    for query in [
        format!("flagConfigEtag={etag}"),
        format!("flagConfigEtag=%22{etag}%22&flagConfigLastModified=1771622898"),
        "flagConfigLastModified=2026-02-20T21:28:18Z".to_owned(),
        "flagConfigEtag=%FF&flagConfigEtag=&x".to_owned(),
    ] {
        let answer = api.ask(&format!("{ALL}?{query}"), json!({}), &[]).await;
        assert_eq!(answer.status(), 200, "{query}");
    }
}

#[tokio::test]
async fn the_tag_covers_the_context_and_not_the_revision() {
    let api = Api::start().await;
    let tag = async |context: Value, known: &str| {
        let answer = api.ask(ALL, context, &[("if-none-match", known)]).await;
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), etag)
    };
    let german = json!({ "targetingKey": "ada", "language": "de" });
    let (_, english) = tag(json!({ "targetingKey": "ada" }), "").await;
    let (status, other) = tag(german.clone(), &english).await;
    assert_eq!(status, 200, "somebody else's answer is not theirs");
    assert_ne!(english, other);
    let (status, _) = tag(json!({ "targetingKey": "bob" }), &english).await;
    assert_eq!(status, 304, "who they are makes no difference here");
    api.publish(&shop_with(2, &flags()));
    assert_eq!(tag(german.clone(), &other).await.0, 304, "nothing is new");
    let mut changed = flags();
    changed["flags"]["welcome"]["variants"]["hallo"] = "Moin".into();
    api.publish(&shop_with(3, &changed));
    assert_eq!(tag(german, &other).await.0, 200);
    assert_eq!(tag(json!({}), &english).await.0, 304, "not for them");
}

#[tokio::test]
async fn a_flag_whose_targeting_fails_does_not_fail_the_others() {
    let api = Api::start().await;
    let mut broken = flags();
    broken["flags"]["welcome"]["targeting"] = json!({ "var": "variant" });
    api.publish(&shop_with(2, &broken));
    let context = json!({ "variant": "nonsense" });
    let answer = api.ask(ALL, context.clone(), &[]).await;
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    let flags = body["flags"].as_array().unwrap();
    assert_eq!(flags.len(), 6);
    let welcome = flags.iter().find(|flag| flag["key"] == "welcome").unwrap();
    assert_eq!(welcome["errorCode"], "GENERAL", "{welcome}");
    assert!(welcome["errorDetails"].is_string());
    let one = api.ask(&format!("{ALL}/welcome"), context, &[]).await;
    assert_eq!(one.status(), 400);
    let one: Value = one.json().await.unwrap();
    assert_eq!(
        (&one["key"], &one["errorCode"]),
        (&json!("welcome"), &json!("GENERAL"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes: one of the statuses of the specification, JSON, and the server lives.
    #[test]
    fn any_body_has_an_answer(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        json in any::<bool>(),
        key in "[a-z%/.?#]{0,20}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::start().await;
            let body = match json {
                true => json!({ "context": { "x": String::from_utf8_lossy(&body) } }).to_string().into(),
                false => body,
            };
            for path in [ALL.to_owned(), format!("{ALL}/{key}")] {
                let Ok(answer) = api.post(&path).body(body.clone()).send().await else {
                    panic!("{path}: no answer");
                };
                let status = answer.status().as_u16();
                assert!(matches!(status, 200 | 400 | 404 | 413), "{path}: {status}");
                answer.json::<Value>().await.unwrap();
            }
        });
    }

    /// Two contexts have one tag exactly when they have one answer.
    #[test]
    fn equal_tags_are_equal_answers(
        languages in proptest::collection::vec(prop_oneof![Just("de"), Just("en"), Just("fr")], 2),
        names in proptest::collection::vec("[a-c]", 2),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::start().await;
            let mut answers = Vec::new();
            for (language, name) in languages.iter().zip(&names) {
                let context = json!({ "targetingKey": name, "language": language });
                let answer = api.ask(ALL, context, &[]).await;
                let etag = answer.headers()["etag"].clone();
                answers.push((etag, answer.bytes().await.unwrap()));
            }
            let (one, two) = (&answers[0], &answers[1]);
            assert_eq!(one.0 == two.0, one.1 == two.1);
        });
    }
}
