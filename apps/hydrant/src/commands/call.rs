use std::io::Read as _;

use connectrpc::ConnectError;
use hydrant_contracts::{Code, Endpoint, Error, MethodPath, header};
use serde_json::Value;

use crate::api::Api;
use crate::cli::{CallArgs, Global};
use crate::failure::{Result, system};
use crate::output::Output;

/// The largest request that is read, and the largest answer, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// Calls an endpoint with JSON.
pub(crate) async fn run(global: &Global, args: &CallArgs, output: &Output) -> Result<()> {
    let path = path(&args.endpoint)?;
    let request = read_request(&args.request)?;
    let api = Api::connect(global).await?;
    let answer = post(&api, &path, &request, args.timeout.get()).await?;
    if output.json {
        return output.json(&answer);
    }
    output.text(&format!("{answer:#}\n"))
}

/// The path of the endpoint: with its service, or of the method alone.
fn path(endpoint: &str) -> Result<String> {
    let bare = endpoint.strip_prefix('/').unwrap_or(endpoint);
    if let Ok(method) = bare.parse::<MethodPath>() {
        return Ok(format!("/{method}"));
    }
    match endpoint.parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint.to_string()),
        Err(error) => Err(Error::from(error)
            .mend("a method that one service has is written PACKAGE.SERVICE/METHOD")
            .into()),
    }
}

fn read_request(text: &str) -> Result<Value> {
    let text = if text == "-" {
        read_input()?
    } else {
        text.to_owned()
    };
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("the request is not JSON: {error}");
        Error::new(Code::InvalidArgument, "bad_json", message)
            .mend("write it in single quotes, as '{\"name\": \"Ann\"}'")
            .into()
    })
}

fn read_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_MESSAGE as u64)
        .read_to_string(&mut text)
        .map_err(|error| system("cannot read standard input", &error, "give it UTF-8 text"))?;
    Ok(text)
}

async fn post(
    api: &Api,
    path: &str,
    request: &Value,
    timeout: std::time::Duration,
) -> Result<Value> {
    // A little longer than the deadline, so that the node's own answer about it arrives.
    let patience = timeout + std::time::Duration::from_secs(1);
    let mut call = reqwest::Client::new()
        .post(format!("{}{path}", api.url()))
        .timeout(patience)
        .header("connect-protocol-version", "1")
        .header(header::CONNECT_TIMEOUT, timeout.as_millis().to_string())
        .json(request);
    if let Some(token) = api.token() {
        call = call.header(header::TOKEN, token);
    }
    let answer = call.send().await.map_err(|error| broken(&error))?;
    let status = answer.status();
    let body = read_body(answer).await?;
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &body).into());
    }
    serde_json::from_slice(&body).map_err(|_| {
        let message = format!("{path} answered {status} with something else than JSON");
        Error::new(Code::Internal, "not_json", message)
            .mend("`call` is for Protobuf and JSON endpoints; ask others with curl")
            .into()
    })
}

async fn read_body(mut answer: reqwest::Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > MAX_MESSAGE {
            let message = "the answer is larger than 64 MB";
            return Err(Error::new(Code::ResourceExhausted, "answer_too_large", message).into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The request did not get an answer.
fn broken(error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        let message = "there was no answer in time";
        return Error::new(Code::DeadlineExceeded, "deadline_exceeded", message)
            .mend("give it more time with --timeout");
    }
    let cause = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    let message = format!("the connection to the node broke{cause}");
    Error::new(Code::Unavailable, "connection_broken", message)
}

/// The error that an answer carries: a problem document, or Connect's, or none that can be read.
fn refusal(status: u16, body: &[u8]) -> Error {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(detail) = answer["detail"].as_str() {
        return problem(status, detail, &answer);
    }
    match serde_json::from_value::<ConnectError>(answer) {
        Ok(error) => Error::from_connect(&error),
        Err(_) => {
            let message = format!("the answer was HTTP {status}");
            Error::new(inferred_code(status), "http_error", message)
        }
    }
}

fn problem(status: u16, detail: &str, answer: &Value) -> Error {
    let code = serde_json::from_value(answer["code"].clone());
    let reason = answer["reason"].as_str().unwrap_or("http_error").to_owned();
    Error::new(
        code.unwrap_or_else(|_| inferred_code(status)),
        reason,
        detail,
    )
    .mend(answer["mend"].as_str().unwrap_or_default())
}

/// The code of an answer without one, as Connect clients infer it.
fn inferred_code(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_and_without_a_service() {
        for (given, expected) in [
            ("hydrant.v1.Node/Health", "/hydrant.v1.Node/Health"),
            ("/hydrant.v1.Node/Health", "/hydrant.v1.Node/Health"),
            (
                "/service/greeter/greet.v1.Greet/Hello",
                "/service/greeter/greet.v1.Greet/Hello",
            ),
            ("/api/mobile/v1/init", "/api/mobile/v1/init"),
        ] {
            assert_eq!(path(given).unwrap(), expected);
        }
        for bad in ["", "greeter", "greeter/Hello World", "/nowhere"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_of_every_kind_are_read() {
        let own = Error::new(Code::NotFound, "no_such_customer", "no customer 7").mend("make it");
        assert_eq!(refusal(404, &own.to_connect_json()), own);
        assert_eq!(refusal(404, &own.to_problem_json()), own);
        let foreign = refusal(403, br#"{"title": "No", "detail": "not you"}"#);
        assert_eq!(
            (foreign.code, &*foreign.message),
            (Code::PermissionDenied, "not you")
        );
        let plain = refusal(502, b"<html>");
        assert_eq!(plain.code, Code::Unavailable);
        assert_eq!(plain.message, "the answer was HTTP 502");
    }
}
