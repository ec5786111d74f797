use connectrpc::ConnectError;
use connectrpc::client::{BoxFuture, ClientBody, ClientTransport, HttpClient};
use http::{HeaderValue, Request, Response};
use hydrant_contracts::{Code, header};

use crate::context::Context;

/// The way to the node: adds the token of the service, and the context of the work.
#[derive(Clone)]
pub struct Transport {
    http: HttpClient,
    token: Option<HeaderValue>,
    with_context: bool,
}

/// What an answer's body is read from.
pub(crate) type Body = <HttpClient as ClientTransport>::ResponseBody;

impl Transport {
    pub(crate) fn new(token: Option<HeaderValue>) -> Self {
        Self {
            http: HttpClient::plaintext(),
            token,
            with_context: true,
        }
    }

    /// The same way for what outlives a request: it leaves the context out, and with it the
    /// deadline.
    pub(crate) fn without_context(&self) -> Self {
        Self {
            with_context: false,
            ..self.clone()
        }
    }

    fn current(&self) -> Option<Context> {
        self.with_context.then(Context::current).flatten()
    }
}

impl ClientTransport for Transport {
    type ResponseBody = Body;
    type Error = ConnectError;

    fn send(
        &self,
        mut request: Request<ClientBody>,
    ) -> BoxFuture<'static, Result<Response<Body>, ConnectError>> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::TOKEN, token.clone());
        }
        let context = self.current();
        if let Some(context) = &context {
            context.forward(request.headers_mut());
        }
        let answer = self.http.send(request);
        let Some(deadline) = context.and_then(|context| context.deadline) else {
            return answer;
        };
        Box::pin(async move {
            tokio::time::timeout_at(deadline, answer)
                .await
                .unwrap_or_else(|_| Err(too_late()))
        })
    }
}

fn too_late() -> ConnectError {
    ConnectError::new(
        Code::DeadlineExceeded,
        "the caller's deadline passed before the answer came",
    )
}
