mod chance;
mod stage;

use std::time::Duration;

use axum::extract::Request;
use http::StatusCode;
use tokio::time::{advance, sleep};

use stage::{KEY, Shop, post, seconds};

#[tokio::test(start_paused = true)]
async fn a_repeated_request_gets_the_first_answer_and_a_mark() {
    let (shop, process) = Shop::with_one();
    let first = process.send(post(KEY, "one")).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.headers["idempotency-remembered"], "86400");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let second = process.send(post(&KEY.to_uppercase(), "one")).await;
    assert_eq!((second.status, &second.text), (201, &first.text));
    for name in ["location", "content-type", "idempotency-remembered"] {
        assert_eq!(second.headers[name], first.headers[name]);
    }
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_one_runs_the_other_is_told_to_wait() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(3));
    let first = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    let second = process.send(post(KEY, "one")).await;
    assert_eq!((second.status, second.reason()), (409, "in_progress"));
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(second.headers["idempotency-lease"], "9");
    let other = process.send(post(KEY, "two")).await;
    assert_eq!((other.status, other.reason()), (422, "key_reused"));
    let first = first.await.unwrap();
    let again = process.send(post(KEY, "one")).await;
    assert_eq!((first.status, &first.text), (201, &again.text));
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_at_once_one_runs() {
    let (shop, process) = Shop::with_one();
    let other = shop.process();
    shop.takes(seconds(1));
    let all = (0..20).map(|at| [&process, &other][at % 2].begin(post(KEY, "one")));
    let answers = futures::future::join_all(all).await;
    let created = answers
        .iter()
        .filter(|one| one.as_ref().unwrap().status == 201);
    assert_eq!((created.count(), shop.runs()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_handler_keeps_its_key() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(60));
    let first = process.begin(post(KEY, "one"));
    for _ in 0..5 {
        sleep(seconds(11)).await;
        assert_eq!(shop.process().send(post(KEY, "one")).await.status, 409);
    }
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_retry_takes_over_under_a_higher_epoch() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(5));
    let lost = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    process.die();
    let next = shop.process();
    sleep(seconds(8)).await;
    let early = next.send(post(KEY, "one")).await;
    assert_eq!(
        (early.status, early.headers["idempotency-lease"].as_str()),
        (409, "1")
    );
    sleep(seconds(2)).await;
    assert_eq!(
        next.send(post(KEY, "two")).await.status,
        422,
        "it is not forgotten"
    );
    let late = next.send(post(KEY, "one")).await;
    assert_eq!(late.status, 201);
    let epochs = shop.epochs();
    assert!(epochs.len() == 2 && epochs[0] < epochs[1], "{epochs:?}");
    assert!(!lost.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_effect_runs_the_handler_again_with_the_same_key() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(1));
    let lost = process.begin(post(KEY, "one"));
    sleep(seconds(0) + Duration::from_millis(900)).await;
    // The effect happens, its outcome is never stored.
    process.die();
    sleep(seconds(11)).await;
    assert!(!lost.is_finished());
    assert_eq!(shop.process().send(post(KEY, "one")).await.status, 201);
    assert_eq!(shop.keys(), [KEY, KEY]);
}

#[tokio::test(start_paused = true)]
async fn who_was_paused_tells_the_outcome_of_the_one_that_took_over() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(2));
    let paused = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    process.pause();
    sleep(seconds(11)).await;
    let second = shop.process().send(post(KEY, "one")).await;
    process.resume();
    let first = paused.await.unwrap();
    assert_eq!((first.status, &first.text), (201, &second.text));
    assert_eq!(first.headers["idempotency-replayed"], "true");
    assert_eq!(shop.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_was_paused_waits_for_the_one_that_took_over() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(5));
    let paused = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    process.pause();
    sleep(seconds(11)).await;
    let second = shop.process().begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    process.resume();
    let first = paused.await.unwrap();
    assert_eq!((first.status, first.reason()), (409, "in_progress"));
    assert_eq!(second.await.unwrap().status, 201);
    assert!(shop.lost().contains(&true), "the handler could know");
}

#[tokio::test(start_paused = true)]
async fn a_failure_may_run_again_and_a_refusal_frees_the_key() {
    let (shop, process) = Shop::with_one();
    shop.answers(StatusCode::SERVICE_UNAVAILABLE);
    let failed = process.send(post(KEY, "one")).await;
    assert_eq!(failed.status, 503);
    assert!(!failed.headers.contains_key("idempotency-remembered"));
    let other = process.send(post(KEY, "two")).await;
    assert_eq!(
        other.status, 422,
        "it may have done something for this content"
    );
    shop.answers(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(process.send(post(KEY, "one")).await.status, 422);
    shop.answers(StatusCode::CREATED);
    sleep(seconds(1)).await;
    assert_eq!(process.send(post(KEY, "two")).await.status, 201);
    assert_eq!(shop.runs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_gets_the_outcome_later() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(2));
    let gone = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    gone.abort();
    sleep(seconds(2)).await;
    let again = process.send(post(KEY, "one")).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_may_run_again() {
    let (shop, process) = Shop::with_one();
    let broken = process.send(post(KEY, "panic")).await;
    assert_eq!((broken.status, broken.reason()), (500, "panicked"));
    process.send(post(KEY, "panic")).await;
    assert_eq!(shop.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_and_scopes_do_not_share_keys() {
    let shop = Shop::new();
    let once = shop.once().scoped_by(http::header::AUTHORIZATION);
    let process = shop.process_with(once);
    let sent = async |caller: &str, user: &str| {
        let mut request = post(KEY, "one");
        let headers = request.headers_mut();
        headers.insert("hydrant-caller", caller.parse().unwrap());
        headers.insert("authorization", user.parse().unwrap());
        process
            .send(request)
            .await
            .headers
            .contains_key("idempotency-replayed")
    };
    assert!(!sent("outside", "ada").await);
    assert!(!sent("outside", "bob").await);
    assert!(!sent("api/shop", "ada").await);
    assert!(sent("outside", "ada").await);
    assert_eq!(shop.runs(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_path_is_another_content() {
    let (_, process) = Shop::with_one();
    process.send(post(KEY, "one")).await;
    for path in ["/other", "/orders?express"] {
        let mut request = post(KEY, "one");
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(process.send(request).await.status, 422, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_required_where_the_author_says_so() {
    let shop = Shop::new();
    let bare = || Request::post("/orders").body("one".into()).unwrap();
    let with_id = |id: &str| {
        let mut request = bare();
        request
            .headers_mut()
            .insert("correlation-id", id.parse().unwrap());
        request
    };
    let process = shop.process();
    assert_eq!(process.send(bare()).await.status, 201);
    assert_eq!(process.send(with_id(KEY)).await.status, 201);
    assert_eq!(process.send(with_id(KEY)).await.status, 201);
    assert_eq!(shop.runs(), 3, "nothing said that these are one");
    let process = shop.process_with(shop.once().required().or_correlation_id());
    let refused = process.send(bare()).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (400, "no_idempotency_key")
    );
    assert_eq!(process.send(with_id("order-7")).await.status, 400);
    assert_eq!(
        process.send(post("order-7", "one")).await.reason(),
        "bad_idempotency_key"
    );
    process.send(with_id(KEY)).await;
    assert_eq!(
        process.send(with_id(KEY)).await.headers["idempotency-replayed"],
        "true"
    );
    assert_eq!(shop.runs(), 4);
    let get = Request::get("/orders")
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(process.send(get).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_and_not_kept() {
    let shop = Shop::new();
    let process = shop.process_with(shop.once().bodies_up_to(100).answers_up_to(20));
    let large = process.send(post(KEY, &"a".repeat(101))).await;
    assert_eq!(
        (large.status, large.reason(), shop.runs()),
        (413, "too_large", 0)
    );
    let long = process.send(post(KEY, &"a".repeat(100))).await;
    assert_eq!((long.status, long.reason()), (500, "answer_too_large"));
}

#[tokio::test(start_paused = true)]
async fn without_the_state_nothing_runs_and_nothing_is_claimed_to_be_kept() {
    let (shop, process) = Shop::with_one();
    shop.memory.fail_next(1, false);
    let refused = process.send(post(KEY, "one")).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (503, "keys_unavailable")
    );
    assert_eq!(
        (refused.headers["retry-after"].as_str(), shop.runs()),
        ("1", 0)
    );
    shop.takes(seconds(1));
    let begun = process.begin(post(KEY, "one"));
    sleep(Duration::from_millis(500)).await;
    shop.memory.fail_next(100, false);
    let unsure = begun.await.unwrap();
    assert_eq!(
        (unsure.status, unsure.reason()),
        (503, "outcome_not_stored")
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_found() {
    let (shop, process) = Shop::with_one();
    shop.takes(seconds(9));
    let begun = process.begin(post(KEY, "one"));
    sleep(seconds(1)).await;
    // The first renewal, and the second, which finds itself there.
    shop.memory.fail_next(2, true);
    sleep(seconds(7)).await;
    shop.memory.fail_next(1, true);
    let first = begun.await.unwrap();
    assert_eq!(first.status, 201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(process.send(post(KEY, "one")).await.text, first.text);
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_forgotten_after_its_time() {
    let (shop, process) = Shop::with_one();
    process.send(post(KEY, "one")).await;
    advance(seconds(24 * 3600 + 1)).await;
    let again = process.send(post(KEY, "two")).await;
    assert_eq!((again.status, shop.runs()), (201, 2));
    let epochs = shop.epochs();
    assert!(epochs[0] < epochs[1], "{epochs:?}");
}

#[tokio::test(start_paused = true)]
async fn methods_are_refused_in_their_own_notation() {
    let shop = Shop::new();
    let process = shop.process_with(shop.once().required().for_methods());
    let bare = Request::post("/orders").body("{}".into()).unwrap();
    let refused = process.send(bare).await;
    let body: serde_json::Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(
        (refused.status, &body["code"]),
        (400, &"invalid_argument".into())
    );
    let mut grpc = post(KEY, "one");
    let kind = "application/grpc+proto".parse().unwrap();
    grpc.headers_mut().insert("content-type", kind);
    let refused = process.send(grpc).await;
    assert_eq!(
        (refused.status, refused.headers["grpc-status"].as_str()),
        (200, "12")
    );
    assert_eq!(shop.runs(), 0);
}
