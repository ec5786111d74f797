use super::*;

const BEARER: (&str, &str) = ("authorization", "Bearer hyk_client");

#[tokio::test]
async fn who_has_no_key_gets_what_is_public_and_cannot_tell_what_else_there_is() {
    let api = Api::start().await;
    let public = ["gone", "limits", "ratio", "sale", "welcome", "yours"];
    assert_eq!(api.keys(&[]).await, public);
    let all = [
        "gone", "limits", "ratio", "sale", "secret", "welcome", "yours",
    ];
    assert_eq!(api.keys(&[BEARER]).await, all);
    assert_eq!(api.keys(&[("x-api-key", CLIENT)]).await, all);
    let (status, body) = api.one("secret", &[BEARER]).await;
    assert_eq!((status, &body["value"]), (200, &json!(1)));
    let (hidden, told) = api.one("secret", &[]).await;
    let (missing, nothing) = api.one("nobody", &[]).await;
    assert_eq!((hidden, missing), (404, 404));
    let text = told.to_string().replace("secret", "nobody");
    assert_eq!(text, nothing.to_string(), "word for word");
}

#[tokio::test]
async fn a_flag_is_public_by_its_set_too_and_its_own_word_counts_more() {
    let api = Api::start().await;
    let mut all = flags();
    all["metadata"]["public"] = true.into();
    all["flags"]["sale"]["metadata"]["public"] = false.into();
    api.publish(&shop_with(2, &all));
    let keys = api.keys(&[]).await;
    assert_eq!(
        keys,
        ["gone", "limits", "ratio", "secret", "welcome", "yours"]
    );
}

#[tokio::test]
async fn a_wrong_key_is_401_and_never_nobody() {
    let api = Api::start().await;
    for wrong in [
        ("authorization", "Bearer hyk_other"),
        ("authorization", "Basic YTpi"),
        ("authorization", ""),
        ("x-api-key", "hyk_other"),
        ("x-api-key", ""),
    ] {
        for path in [ALL.to_owned(), format!("{ALL}/sale")] {
            let answer = api.ask(&path, json!({}), &[wrong]).await;
            assert_eq!(answer.status(), 401, "{wrong:?}");
            assert_eq!(
                answer.headers()["www-authenticate"],
                "Bearer realm=\"hydrant\""
            );
            let body: Value = answer.json().await.unwrap();
            assert!(body["errorDetails"].is_string(), "{body}");
            assert!(!body.to_string().contains("hyk_"), "no key is repeated");
        }
    }
}

#[tokio::test]
async fn a_revoked_key_is_wrong_from_the_next_request() {
    let api = Api::start().await;
    assert_eq!(api.one("secret", &[BEARER]).await.0, 200);
    api.publish(&revision(2, &[(Kind::Flags, "shop", flags())]));
    assert_eq!(api.one("secret", &[BEARER]).await.0, 401);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let api = Api::empty().await;
    let settings = json!({ "anonymous": { "rate": { "perSecond": 0.5, "burst": 3 } } });
    let slow = key(
        "hyk_slow",
        json!({ "rate": { "perSecond": 0.1, "burst": 2 } }),
    );
    api.publish(&revision(
        1,
        &[
            (Kind::Flags, "shop", flags()),
            (Kind::Key, "slow", slow),
            (Kind::Key, "web", key(CLIENT, json!({}))),
            (Kind::Settings, "settings", settings),
        ],
    ));
    let told = async |headers: &[(&str, &str)]| {
        let answer = api.ask(ALL, json!({}), headers).await;
        let wait = answer.headers().get("retry-after");
        let wait = wait.map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
        (answer.status().as_u16(), wait)
    };
    let one = [("x-forwarded-for", "9.9.9.9, 10.0.0.1")];
    for _ in 0..3 {
        assert_eq!(told(&one).await, (200, None));
    }
    assert_eq!(told(&one).await, (429, Some(2)));
    // What a client claims of itself does not count; another address does.
    assert_eq!(
        told(&[("x-forwarded-for", "8.8.8.8, 10.0.0.1")]).await.0,
        429
    );
    assert_eq!(told(&[("x-forwarded-for", "10.0.0.2")]).await.0, 200);
    // A key has a bucket of its own, and who tries keys pays as who has none.
    let slow = [("x-api-key", "hyk_slow"), one[0]];
    assert_eq!(told(&slow).await.0, 200);
    assert_eq!(told(&slow).await.0, 200);
    assert_eq!(told(&slow).await, (429, Some(10)));
    assert_eq!(told(&[("x-api-key", "hyk_guess"), one[0]]).await.0, 429);
    for _ in 0..20 {
        assert_eq!(told(&[BEARER, one[0]]).await.0, 200, "no limit");
    }
}

#[tokio::test]
async fn a_refusal_is_json_and_says_how_long() {
    let api = Api::empty().await;
    let settings = json!({ "anonymous": { "rate": { "perSecond": 0.01, "burst": 1 } } });
    api.publish(&revision(1, &[(Kind::Settings, "settings", settings)]));
    api.ask(ALL, json!({}), &[]).await;
    let answer = api.ask(ALL, json!({}), &[]).await;
    assert_eq!(answer.headers()["retry-after"], "100");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errorCode"], "GENERAL");
    assert!(
        body["errorDetails"].as_str().unwrap().contains("100 s"),
        "{body}"
    );
}

#[tokio::test]
async fn browsers_may_ask_from_the_origins_that_are_named() {
    let api = Api::start().await;
    let url = format!("{}{ALL}", api.base);
    let preflight = async |origin: &str| {
        let request = api.client.request(reqwest::Method::OPTIONS, &url);
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "content-type,if-none-match",
            );
        request.send().await.unwrap()
    };
    let answer = preflight("https://any.example").await;
    assert_eq!(answer.status(), 204);
    let headers = answer.headers();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["access-control-max-age"], "7200");
    let sent = headers["access-control-allow-headers"].to_str().unwrap();
    for name in [
        "authorization",
        "x-api-key",
        "if-none-match",
        "content-type",
    ] {
        assert!(sent.contains(name), "{sent}");
    }
    assert!(
        headers["access-control-allow-methods"]
            .to_str()
            .unwrap()
            .contains("POST")
    );
    let wrong = [("origin", "https://any.example"), ("x-api-key", "no")];
    for headers in [&wrong[..1], &wrong] {
        let answer = api.ask(ALL, json!({}), headers).await;
        let headers = answer.headers();
        assert_eq!(headers["access-control-allow-origin"], "*", "errors too");
        let read = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["etag", "retry-after", "hydrant-revision"] {
            assert!(read.contains(name), "{read}");
        }
    }
    let settings = json!({ "cors": { "origins": ["https://shop.example"] } });
    api.publish(&revision(2, &[(Kind::Settings, "settings", settings)]));
    let answer = preflight("https://shop.example").await;
    let headers = answer.headers();
    assert_eq!(
        headers["access-control-allow-origin"],
        "https://shop.example"
    );
    assert_eq!(headers["vary"], "origin");
    let answer = preflight("https://any.example").await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}
